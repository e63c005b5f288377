"""Every PromQL of triggers, alerts and dashboards names metrics and labels that running programs export."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from chart_render import Chart, only
from lab.daemon import Daemon
from promql import Names, names
from sie_cli.ports import Ports
from sie_server.api.metrics import Metrics

COMMANDS: Final = Path(sys.executable).parent
MODEL: Final = "sie/hash-64"
SCRAPED: Final = {"namespace", "service", "pod", "instance", "job", "container", "endpoint", "worker_pool"}
ON: Final = {
    "ingress": {"enabled": True, "host": "sie.example.com"},
    "serviceMonitor": {"enabled": True},
    "alertRules": {"enabled": True},
    "dashboards": {"enabled": True},
}
# What others export: kube-state-metrics, ingress-nginx (their documentation), KEDA 2.21 (pkg/metricscollector), DCGM.
OTHERS: Final[Mapping[str, set[str]]] = {
    "kube_deployment_status_replicas_available": {"deployment"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_statefulset_replicas": {"statefulset"},
    "kube_statefulset_status_replicas_ready": {"statefulset"},
    "kube_pod_container_status_restarts_total": {"pod", "container"},
    "nginx_ingress_controller_ssl_expire_time_seconds": {"host"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler", "statefulset"},
    "keda_scaler_detail_errors_total": {
        "exported_namespace",
        "metric",
        "scaledObject",
        "scaler",
        "triggerIndex",
        "type",
    },
    "DCGM_FI_DEV_GPU_TEMP": {"gpu", "Hostname", "exported_namespace", "exported_pod"},
    "DCGM_FI_DEV_GPU_UTIL": {"gpu", "Hostname", "exported_namespace", "exported_pod"},
}


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ,  # noqa: TID251 - continuous integration must not skip
    reason="needs the command promtool (Debian: apt install prometheus)",
)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, set[str]]]:
    """Sample names and their labels, of a router and a worker that have served one request."""
    logs = tmp_path_factory.mktemp("logs")
    with closing(Ports()) as ports:
        router, worker = (f"127.0.0.1:{ports.take()}" for _ in range(2))
        flags = ["--host", "127.0.0.1", "--port", worker.rpartition(":")[2], "--device", "cpu", "--models", MODEL]
        served = Daemon("worker", [str(COMMANDS / "sie-server"), "serve", *flags], logs / "worker.log")
        flags = ["--host", "127.0.0.1", "--port", router.rpartition(":")[2], "--worker", f"http://{worker}"]
        routed = Daemon("router", [str(COMMANDS / "sie-router"), "serve", *flags, "--group", "l4"], logs / "router.log")
        try:
            body = {"items": [{"text": "a test"}]}
            url = f"http://{router}/v1/encode/{MODEL}"
            routed.wait_until(lambda: httpx.get(f"http://{router}/readyz").is_success)
            served.wait_until(lambda: httpx.post(url, json=body).status_code == 200)
            yield _samples(f"http://{router}/metrics") | _samples(f"http://{worker}/metrics")
        finally:
            routed.stop()
            served.stop()


@pytest.fixture(scope="module")
def exported(scraped: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same, and what a worker exports once something happened."""
    return scraped | _silent()


def _samples(url: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(httpx.get(url).text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _silent() -> dict[str, set[str]]:
    """Of the worker, what has no sample before something happens, such as a model that nobody used."""
    endings = {"counter": ("_total",), "histogram": ("_count", "_sum", "_bucket")}
    collectors = [each for each in set(Metrics()._registry._collector_to_names) if each._type in endings]  # type: ignore[attr-defined]
    return {each._name + ending: set(each._labelnames) for each in collectors for ending in endings[each._type]}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def expressions(chart: Chart) -> dict[str, str]:
    """Every expression of the chart, by where it stands."""
    objects = chart.render(ON)
    triggers = only(objects, "ScaledObject")["spec"]["triggers"]
    found = {f"trigger {each['name']}": each["metadata"]["query"] for each in triggers}
    for group in only(objects, "PrometheusRule")["spec"]["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    for item in (each for each in objects if each["metadata"]["name"].startswith("sie-dashboard-")):
        for text in item["data"].values():
            for panel in json.loads(text)["panels"]:
                found |= {f"panel {panel['title']} {each['refId']}": each["expr"] for each in panel["targets"]}
    return found


def _unknown(said: Names, exported: Mapping[str, set[str]]) -> set[str]:
    known = {**exported, **OTHERS}
    missing = {metric for metric, _ in said.selected if metric not in known} | set(said.bare)
    labels = {metric: known.get(metric, set()) | SCRAPED for metric, _ in said.selected}
    missing |= {f"{metric}{{{label}}}" for metric, own in said.selected for label in own - labels[metric]}
    return missing | (said.grouped - set().union(*labels.values()) - {"le"})


def test_every_expression_names_what_is_exported(expressions: dict[str, str], exported: dict[str, set[str]]) -> None:
    assert len(expressions) > 40
    wrong = {where: _unknown(names(text), exported) for where, text in expressions.items()}
    assert not {where: missing for where, missing in wrong.items() if missing}


def test_every_series_is_there_before_something_happens(
    expressions: dict[str, str], scraped: dict[str, set[str]]
) -> None:
    """A panel would be empty, and `increase` in an alert would not see the first event."""
    asked = {metric for text in expressions.values() for metric, _ in names(text).selected if metric.startswith("sie_")}
    assert not asked - set(scraped)


def test_every_metric_of_the_monitoring_page_is_exported(exported: dict[str, set[str]]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/deployment/monitoring.md").read_text()
    named = set(re.findall(r"`(sie_\w+)`", page))
    assert len(named) > 20
    assert not {name for name in named if not {name, f"{name}_count"} & set(exported)}


@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("sum(sie_request_queue_depth{namespace='x'})", "sie_request_queue_depth"),
        ('sum by (gpu_type) (sie_router_workers{status="healthy"})', "gpu_type"),
        ('sie_router_workers{gpu="l4"}', "sie_router_workers{gpu}"),
        ("avg(sie_batch_size)", "sie_batch_size"),
    ],
)
def test_what_is_not_exported_is_found(exported: dict[str, set[str]], expression: str, missing: str) -> None:
    assert missing in _unknown(names(expression), exported)


def test_every_trigger_and_alert_asks_about_this_release_only(expressions: dict[str, str]) -> None:
    for where, text in expressions.items():
        for metric, labels in names(text).selected:
            if metric.startswith("sie_") and not where.startswith("panel"):
                assert {"namespace", "service"} <= labels, where


def test_facts_of_every_router_are_taken_once_and_own_counts_are_added(expressions: dict[str, str]) -> None:
    shared = ("pending_demand", "active_lease_gpus", "warm_floor_workers", "worker_queue_depth", "router_workers")
    for where, text in expressions.items():
        for name in shared:
            if name in text and "absent(" not in text:
                assert "max" in text, where
        for name in ("recent_requests", "unserved_requests"):
            if name in text:
                assert re.search(rf"sum( by \([a-z_, ]+\))? ?\(sie_router_{name}", text), where


@needs_promtool
def test_promtool_reads_every_expression(expressions: dict[str, str], tmp_path: Path) -> None:
    rules = [
        {"record": f"own:{number}", "expr": text.replace("$__rate_interval", "1m")}
        for number, text in enumerate(expressions.values())
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    _promtool("check", "rules", str(tmp_path / "rules.yaml"))


@needs_promtool
def test_alerts_fire_when_they_should_and_not_at_zero(chart: Chart, tmp_path: Path) -> None:
    rule = only(chart.render(ON), "PrometheusRule")
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rule["spec"]))
    _promtool("check", "rules", str(tmp_path / "alerts.yaml"))
    cases = Path(__file__).with_name("alerts_test.yaml")
    (tmp_path / cases.name).write_text(cases.read_text())
    said = yaml.safe_load(cases.read_text())
    tested = {each["alertname"] for case in said["tests"] for each in case["alert_rule_test"] if each.get("exp_alerts")}
    assert tested == {each["alert"] for group in rule["spec"]["groups"] for each in group["rules"]}
    _promtool("test", "rules", str(tmp_path / cases.name))


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
