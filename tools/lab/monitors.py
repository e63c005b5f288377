"""What a Prometheus operator does with ServiceMonitors: whom Prometheus scrapes, with the labels its users expect.

Debian's Prometheus knows no Kubernetes, so each ServiceMonitor becomes a scrape job over a file of targets, written
anew at every change. Relabelling, TLS and authorization of ServiceMonitors are passed on as far as our chart uses them.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from lab.api import Api, Object
from lab.daemon import Daemon
from lab.mirror import Mirror, endpoints_of
from lab.programs import program

MONITORS: Final = "/apis/monitoring.coreos.com/v1/servicemonitors"
SOURCES: Final = ("/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/pods", MONITORS)
NAMESPACE: Final = "monitoring"  # where the chart looks for a Prometheus that it did not bring
SWITCHES: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SWITCH: Final = "prometheus"  # a ConfigMap there: with `replicas` "0" Prometheus is gone
PORT: Final = 9090
SETTLE_S: Final = 0.1
DISCOVERED_POD_LABEL: Final = "__meta_kubernetes_pod_label_"


def jobs(monitors: Iterable[Object], folder: Path) -> list[dict[str, Any]]:
    """The scrape jobs of all ServiceMonitors; targets lie in the folder, one file a job."""
    return [
        {
            "job_name": name,
            "scrape_interval": endpoint.get("interval", "15s"),
            "scrape_timeout": endpoint.get("scrapeTimeout", "10s"),
            "metrics_path": endpoint.get("path", "/metrics"),
            "file_sd_configs": [{"files": [str(folder / f"{name.replace('/', '.')}.json")]}],
            "relabel_configs": [
                {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in each.items()}
                for each in endpoint.get("relabelings", ())
            ],
        }
        for name, _, endpoint in _endpoints(monitors)
    ]


def targets(
    monitors: Iterable[Object], services: Iterable[Object], slices: Iterable[Object], pods: Iterable[Object]
) -> dict[str, list[dict[str, Any]]]:
    """For each job its targets, labelled as the operator does: namespace, service, pod, endpoint, job, container."""
    labels_of = {each["metadata"]["uid"]: each["metadata"].get("labels", {}) for each in pods}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, monitor, endpoint in _endpoints(monitors):
        namespace = monitor["metadata"]["namespace"]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [
            each["metadata"]["name"]
            for each in services
            if each["metadata"]["namespace"] == namespace and wanted <= each["metadata"].get("labels", {}).items()
        ]
        found[name] = [
            {
                "targets": [f"{address}:{port['port']}"],
                "labels": {
                    "namespace": namespace,
                    "service": service,
                    "endpoint": port["name"],
                    "job": service,
                    "pod": target.get("targetRef", {}).get("name", ""),
                    **_discovered(labels_of.get(target.get("targetRef", {}).get("uid"), {})),
                },
            }
            for service in chosen
            for item, target in endpoints_of(slices, namespace, service)
            for port in item["ports"]
            if port["name"] == endpoint["port"]
            for address in target["addresses"]
        ]
    return found


def _endpoints(monitors: Iterable[Object]) -> list[tuple[str, Object, Object]]:
    return [
        (f"{each['metadata']['namespace']}/{each['metadata']['name']}/{number}", each, endpoint)
        for each in sorted(monitors, key=lambda each: str(each["metadata"]["uid"]))
        for number, endpoint in enumerate(each["spec"]["endpoints"])
    ]


def _discovered(labels: Mapping[str, str]) -> dict[str, str]:
    return {DISCOVERED_POD_LABEL + re.sub(r"\W", "_", key): value for key, value in labels.items()}


class Monitoring:
    """A Prometheus that scrapes what ServiceMonitors ask for, and is gone while its switch says so."""

    def __init__(self, api: Api, address: str, data: Path, logs: Path) -> None:
        self.url = f"http://{address}:{PORT}"
        self._data = data / "prometheus"
        self._logs = logs
        self._data.mkdir()
        self._config = self._data / "prometheus.yml"
        self._daemon: Daemon | None = None
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._mirrors = [Mirror(api, path, self._changed) for path in SOURCES]
        self._switches = Mirror(api, SWITCHES, self._changed)
        self._write()
        self._start()
        self._thread = threading.Thread(target=self._follow, name="monitors", daemon=True)
        self._thread.start()

    def _start(self) -> None:
        """Start Prometheus, with what it stored before; returns once it answers."""
        command = [program("prometheus"), f"--config.file={self._config}", f"--storage.tsdb.path={self._data / 'data'}"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--web.enable-lifecycle"]
        self._daemon = Daemon("prometheus", [*command, "--log.level=warn"], self._logs / "prometheus.log")
        self._daemon.wait_until(lambda: httpx.get(f"{self.url}/-/ready", trust_env=False).is_success)

    def close(self) -> None:
        """End all of it."""
        self._stop.set()
        self._changed.set()
        self._thread.join()
        for mirror in (*self._mirrors, self._switches):
            mirror.close()
        self._end()

    def _end(self) -> None:
        """End it; what it stored stays."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._changed.wait()
            self._stop.wait(SETTLE_S)  # changes come in bursts
            self._changed.clear()
            has_new_jobs = self._write()
            if not self._is_wanted():
                self._end()
            elif self._daemon is None:
                self._start()
            elif has_new_jobs:
                with suppress(httpx.HTTPError):  # it ends: the next one reads the file
                    httpx.post(f"{self.url}/-/reload", trust_env=False)

    def _is_wanted(self) -> bool:
        found = [each for each in self._switches.objects() if each["metadata"]["name"] == SWITCH]
        return not any(each["data"].get("replicas") == "0" for each in found)

    def _write(self) -> bool:
        """Write what changed; True if jobs did."""
        services, slices, pods, monitors = (mirror.objects() for mirror in self._mirrors)
        for name, found in targets(monitors, services, slices, pods).items():
            _replace(self._data / f"{name.replace('/', '.')}.json", msgspec.json.encode(found))
        config = {"global": {"evaluation_interval": "1m"}, "scrape_configs": jobs(monitors, self._data)}
        return _replace(self._config, msgspec.json.encode(config))  # JSON is YAML


def _replace(file: Path, content: bytes) -> bool:
    if file.exists() and file.read_bytes() == content:
        return False
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)
    return True
