"""`sie doctor` finds planted faults: in real processes where they can be planted there, else in gathered facts."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from local_cluster import LocalCluster, kept_port, local_cluster
from running_sie import sie
from served_worker import write_catalog
from sie_cli.api import Api, Reply
from sie_cli.doctor.checks import CHAIN, Finding, Verdict, diagnose
from sie_cli.doctor.facts import Asked, Attempt, Facts
from sie_cli.doctor.gather import gather, keda_query
from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION
from told_servers import prometheus, told

KEY = "right-token"
GOOD, BROKEN, HOMELESS = "test/good", "test/broken", "test/homeless"
CLUSTER = """
workers: {pools: {cpu: {minReplicas: 1, maxReplicas: 1}, l4: {}}}
autoscaling: {enabled: false}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One worker of profile cpu, a profile l4 that nobody scales, tokens on."""
    folder = tmp_path_factory.mktemp("cluster")
    weightless = {"adapter": "dense", "weights_path": str(folder / "nowhere")}
    models = {GOOD: {}, BROKEN: weightless, HOMELESS: {"adapter": "sparse"}}
    write_catalog(folder / "catalog", models, adapters={"hash": "", "dense": ""})
    env = {
        "SIE_MODELS_DIR": str(folder / "catalog" / "models"),
        "SIE_BUNDLES_DIR": str(folder / "catalog" / "bundles"),
        "SIE_AUTH_MODE": "static",
        "SIE_AUTH_TOKENS": KEY,
        "SIE_AUTH_EXEMPT_OPERATIONAL": "1",
        "SIE_HF_FALLBACK": "0",
    }
    with local_cluster(folder, CLUSTER, env) as running:
        running.wait_for_workers("cpu", 1)
        yield running


async def examine(asked: Asked, key: str | None = KEY) -> tuple[Finding, ...]:
    async with Api(asked.url, key) as api:
        return diagnose(await gather(api, replace(asked, has_key=key is not None), time.monotonic, lambda _: None))


def broken(findings: tuple[Finding, ...]) -> Finding:
    assert [finding.verdict for finding in findings].count(Verdict.BROKEN) == 1, findings
    assert findings[-1].verdict is Verdict.BROKEN
    assert findings[-1].fix
    return findings[-1]


def asked(cluster: LocalCluster, model: str = GOOD, profile: str | None = "cpu", **more: object) -> Asked:
    return replace(Asked(cluster.url, model, VERSION, profile, wait_s=20.0), **more)  # type: ignore[arg-type]


async def test_a_sound_cluster_has_no_broken_link(cluster: LocalCluster) -> None:
    findings = await examine(asked(cluster))
    assert [finding.link for finding in findings] == [check.__name__ for check in CHAIN]
    assert {finding.verdict for finding in findings} == {Verdict.OK, Verdict.SKIPPED}


async def test_fault_1_a_wrong_port() -> None:
    with kept_port() as port:
        finding = broken(await examine(Asked(f"http://127.0.0.1:{port}", GOOD, VERSION)))
    assert finding.link == "reach"
    assert "check host and port of --url" in finding.fix


async def test_fault_2_a_name_nobody_has_and_tls_where_there_is_none(cluster: LocalCluster) -> None:
    name = broken(await examine(Asked("http://nobody.invalid", GOOD, VERSION)))
    assert (name.link, "check the host name" in name.fix) == ("reach", True)
    tls = broken(await examine(Asked(cluster.url.replace("http", "https"), GOOD, VERSION)))
    assert (tls.link, "http against https" in tls.fix) == ("reach", True)


async def test_fault_3_something_else_at_the_address() -> None:
    with told(lambda *_: (200, {"hello": "world"}, {})) as url:
        finding = broken(await examine(Asked(url, GOOD, VERSION)))
    assert "no SIE router" in finding.found
    assert "point --url to the router" in finding.fix


@pytest.mark.parametrize(("key", "fix"), [(None, "pass --api-key"), ("wrong", "not one of the router's tokens")])
async def test_fault_4_a_token_missing_or_wrong(cluster: LocalCluster, key: str | None, fix: str) -> None:
    finding = broken(await examine(asked(cluster), key))
    assert (finding.link, fix in finding.fix) == ("token", True)
    assert "UNAUTHENTICATED" in finding.found


async def test_fault_5_a_cluster_of_another_generation() -> None:
    with told(lambda *_: (200, {"type": "router"}, {SERVER_VERSION: "0.7.2"})) as url:
        finding = broken(await examine(Asked(url, GOOD, VERSION)))
    assert (finding.link, finding.fix) == ("version", f"pip install 'sie==0.7.2', or bring the cluster to {VERSION}")


async def test_fault_6_a_model_nobody_knows_or_no_bundle_runs(cluster: LocalCluster) -> None:
    unknown = broken(await examine(asked(cluster, "test/none")))
    assert (unknown.link, "sie models" in unknown.fix) == ("catalogue", True)
    homeless = broken(await examine(asked(cluster, HOMELESS)))
    assert (homeless.link, "a bundle in SIE_BUNDLES_DIR" in homeless.fix) == ("catalogue", True)


async def test_fault_7_a_profile_nobody_configured_and_a_bundle_that_cannot_run_it(cluster: LocalCluster) -> None:
    unknown = broken(await examine(asked(cluster, profile="h100")))
    assert (unknown.link, "workers.pools" in unknown.fix) == ("profile", True)
    conflict = broken(await examine(asked(cluster, f"gold:/{GOOD}")))
    assert (conflict.link, "leave the bundle away" in conflict.fix) == ("profile", True)


async def test_fault_8_nobody_acts_on_the_demand(cluster: LocalCluster) -> None:
    findings = await examine(asked(cluster, profile="l4", wait_s=0.1))
    assert broken(findings).link == "autoscaler"
    assert "scaledobject" in findings[-1].fix
    told_by = {finding.link: finding.found for finding in findings}
    assert told_by["demand"] == "sie_router_pending_demand of l4/default is 1"


@pytest.mark.parametrize(
    ("series", "says"),
    [
        ({}, "series of 0 routers, not 2"),
        ({"count(": 1}, "series of 1 routers, not 2"),
        ({"count(": 2}, "KEDA's query gives None"),
        ({"count(": 2, "pending_demand": 0}, "not above activation 0"),
    ],
)
async def test_fault_9_prometheus_does_not_see_what_the_router_tells(
    cluster: LocalCluster, series: dict[str, float], says: str
) -> None:
    with told(prometheus(series)) as url:
        finding = broken(await examine(asked(cluster, profile="l4", wait_s=0.1, prometheus=url, routers=2)))
    assert (finding.link, says in finding.found) == ("scrape", True)
    assert "serviceMonitor.enabled" in finding.fix or keda_query("l4", "default") in finding.fix


async def test_fault_9b_prometheus_is_away(cluster: LocalCluster) -> None:
    with kept_port() as port:
        away = f"http://127.0.0.1:{port}"
        finding = broken(await examine(asked(cluster, profile="l4", wait_s=0.1, prometheus=away)))
    assert (finding.link, "prometheusAddress" in finding.fix) == ("scrape", True)


async def test_fault_10_a_worker_that_cannot_load_its_weights(cluster: LocalCluster) -> None:
    finding = broken(await examine(asked(cluster, BROKEN)))
    assert finding.link == "model"
    assert "cannot load it" in finding.found


def reply(status: int, value: object) -> Reply:
    return Reply(status, {SERVER_VERSION.lower(): VERSION}, json.dumps(value))


def stuck(why: str, demand: float = 1.0) -> Facts:
    """A request that waits for ever although a worker of its profile is there."""
    decision = {"action": "provision", "profile": "l4", "bundle": "default", "pool": "default", "creates_demand": True}
    worker = {"name": "l4-0", "url": "http://l4-0", "profile": "l4", "bundle": "default", "why": why}
    waiting = reply(503, {"error": {"code": "PROVISIONING", "message": "wait"}})
    return Facts(
        Asked("http://r", GOOD, VERSION),
        health=reply(200, {"type": "router"}),
        model=reply(200, {"name": GOOD, "bundles": ["default"]}),
        route=reply(200, {"decision": decision, "workers": [worker]}),
        attempts=(Attempt(0.0, waiting), Attempt(60.0, waiting)),
        metrics=reply(200, ""),
        demand={("l4", "default"): demand},
    )


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("draining", "it finishes what it has and goes"),
        ("wrong_bundle", "the model needs another bundle"),
        ("ejected", "it failed too often"),
        ("disconnected", "the router cannot connect"),
        ("not_ready", "it starts"),
    ],
)
def test_fault_11_a_worker_that_is_there_but_takes_nothing(why: str, fix: str) -> None:
    finding = broken(diagnose(stuck(why)))
    assert (finding.link, finding.found) == ("autoscaler", f"worker l4-0 takes no requests: {why}")
    assert fix in finding.fix


def test_fault_12_a_demand_that_expired_before_anybody_read_it() -> None:
    finding = broken(diagnose(stuck("draining", demand=0.0)))
    assert (finding.link, "the demand expired" in finding.fix) == ("demand", True)


def test_metrics_that_cannot_be_read_break_the_link_of_the_demand() -> None:
    finding = broken(diagnose(replace(stuck("draining"), demand=None, metrics=reply(404, {}))))
    assert (finding.link, "must be readable" in finding.fix) == ("demand", True)


def test_the_command_tells_each_link_and_ends_with_1_when_one_is_broken(cluster: LocalCluster) -> None:
    env = {"SIE_BASE_URL": cluster.url, "SIE_API_KEY": KEY}
    sound = sie("doctor", "-m", GOOD, "--gpu", "cpu", env=env)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert [line.split()[1] for line in sound.stdout.splitlines()] == [check.__name__ for check in CHAIN]
    ill = sie("doctor", "-m", "test/none", "--json", env=env)
    assert ill.returncode == 1
    assert [(each["link"], each["verdict"]) for each in json.loads(ill.stdout)][-1] == ("catalogue", "broken")
    brief = sie("doctor", env=env)
    assert brief.returncode == 0, brief.stdout
    assert [line.split()[0] for line in brief.stdout.splitlines()] == ["ok", "ok", "ok", "skipped"]
    assert "-m MODEL follows a request" in brief.stdout


def test_a_pool_that_cannot_run_the_model_is_to_be_made_anew_and_not_the_chart_to_be_changed() -> None:
    refused = {"action": "reject", "code": "GPU_NOT_CONFIGURED", "message": "pool 'a' reserves no workers for it"}
    facts = replace(stuck("draining"), route=reply(200, {"decision": refused, "workers": []}))
    assert "workers.pools of the chart" in broken(diagnose(facts)).fix
    of_pool = replace(facts, asked=replace(facts.asked, pool="a"))
    assert broken(diagnose(of_pool)).fix.startswith("make a pool with what the model needs: sie pools create")
