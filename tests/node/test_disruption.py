"""What may happen to a cluster under load, on a real one: no request is lost, and no pool shrinks."""

import shlex
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from chart_render import Chart, Object
from cluster_load import Load
from deployed import ITEM, MODEL, NAME, POOL, Release, is_ready
from disruption import Watch, freeze, memory_taken, restarts, settle
from lab.whole import CommandError, Lab
from pages import Place, shell

WORKERS: Final = 3
CLIENTS: Final = 4
KEDA: Final = "app in (keda-operator,keda-operator-metrics-apiserver)"
NEW: Final = "0.1.11"
# A burst makes three workers, and they stay: KEDA holds the highest wish of an hour, and goes to zero after a day.
BUSY: Final[Mapping[str, Any]] = {
    "workers": {"common": {"preloadModels": [MODEL]}},
    "autoscaling": {"queueDepthThreshold": 1, "scaleDownStabilization": 3600, "cooldownPeriod": 86400},
}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def restored(release: Release) -> Generator[Release]:
    """As others want it again afterwards."""
    yield release
    release.upgrade()


@pytest.fixture
def busy(restored: Release) -> Release:
    """With three workers that nobody forced on it; tests leave them, or an empty pool."""
    if restored.replicas() != WORKERS:
        restored.upgrade(BUSY)
        with Load(restored.url, MODEL, ITEM, at_once=12, profile=POOL):
            restored.wait_until(lambda: restored.replicas() == WORKERS)
        restored.wait_until_workers(WORKERS)
    return restored


@contextmanager
def steady(release: Release) -> Generator[Watch]:
    """Requests all the time, which their clients never try again, and a look at the pool's size; none may be lost."""
    with Load(release.url, MODEL, ITEM, at_once=CLIENTS, profile=POOL, every_s=0.05) as load:
        release.wait_until(lambda: load.answered > 10)
        before = load.answered, len(load.failures)
        assert before[1] == 0, load.failures[:3]
        with Watch(release.replicas) as sizes:
            yield sizes
        release.wait_until(lambda: load.answered > before[0] + 10)
    assert not load.failures, f"{len(load.failures)} of {load.answered} failed: {load.failures[:3]}"


def newer(chart: Chart, lab: Lab, folder: Path) -> Chart:
    """The chart of the next version, whose images are those of this one under its name."""
    shutil.copytree(chart.folder, folder / "sie-cluster")
    file = folder / "sie-cluster/Chart.yaml"
    own = yaml.safe_load(file.read_text())
    for image in ("sie-router:{}", "sie-server:{}-cpu-default"):
        lab.tag_image(image.format(own["appVersion"]), image.format(f"v{NEW}").partition(":")[2])
    file.write_text(yaml.safe_dump({**own, "version": NEW, "appVersion": f"v{NEW}"}))
    return Chart(file.parent, chart.scratch)


def versions(release: Release) -> set[str]:
    """Of the images of routers and workers."""
    pods = [*release.pods("router"), *release.workers()]
    return {each["spec"]["containers"][0]["image"].partition(":v")[2].partition("-")[0] for each in pods}


def test_an_upgrade_of_chart_and_images_loses_no_request_and_keeps_the_size(
    lab: Lab, busy: Release, tmp_path: Path
) -> None:
    following = Release(lab, newer(busy.chart, lab, tmp_path), busy.namespace)
    back = ("rollback", NAME, "-n", busy.namespace, "--wait")
    for change in (partial(following.upgrade, BUSY), partial(lab.helm, *back)):
        before = versions(busy)
        with steady(busy) as sizes:
            change()
            busy.wait_until(lambda: versions(busy).isdisjoint(before))  # noqa: B023 - called before the next round
            busy.wait_until_workers(WORKERS)
        assert set(sizes.seen) == {WORKERS}


def test_a_drain_waits_for_budgets_and_loses_no_request(lab: Lab, busy: Release) -> None:
    """On a cluster of one node, so what is evicted has nowhere to go: one router and one worker, and no more."""
    (block,) = [each for each in shell("troubleshooting", Place.PODS) if "drain" in each.text]
    (node,) = lab.api.get("/api/v1/nodes")["items"]
    words = shlex.split(block.text.replace("$NODE", node["metadata"]["name"]))
    with (
        steady(busy) as sizes,
        Watch(lambda: count(busy.pods("router"))) as routers,
        Watch(lambda: count(busy.workers())) as workers,
    ):
        with pytest.raises(CommandError, match="disruption budget"):
            lab.kubectl(*words[1:], "--pod-selector=app.kubernetes.io/component in (router,worker)", "--timeout=30s")
        lab.kubectl("uncordon", node["metadata"]["name"])
        busy.wait_until_workers(WORKERS)
        busy.wait_until(lambda: count(busy.pods("router")) == 2)
    assert (min(routers.seen), min(workers.seen)) == (1, WORKERS - 1)
    assert set(sizes.seen) == {WORKERS}


def count(pods: list[Object]) -> int:
    return sum(map(is_ready, pods))


@pytest.mark.parametrize("how", [(), ("--grace-period=0", "--force")], ids=["told", "killed"])
def test_a_deleted_worker_loses_no_request(lab: Lab, busy: Release, how: tuple[str, ...]) -> None:
    victim = busy.workers()[1]["metadata"]
    with steady(busy) as sizes:
        lab.kubectl("-n", busy.namespace, "delete", "pod", victim["name"], *how)
        busy.wait_until(lambda: victim["uid"] not in {each["metadata"]["uid"] for each in busy.workers()})
        busy.wait_until_workers(WORKERS)
    assert set(sizes.seen) == {WORKERS}


def test_a_worker_that_the_kernel_kills_for_its_memory_loses_no_request(busy: Release) -> None:
    victim = busy.workers()[0]
    name = victim["metadata"]["name"]
    with steady(busy) as sizes:
        with memory_taken(victim):
            busy.wait_until(lambda: restarts(busy, name) == 1)
        busy.wait_until_workers(WORKERS)
    (status,) = [
        each for pod in busy.workers() if pod["metadata"]["name"] == name for each in pod["status"]["containerStatuses"]
    ]
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert set(sizes.seen) == {WORKERS}


def test_a_worker_that_hangs_loses_no_request_and_is_started_again(busy: Release) -> None:
    victim = busy.workers()[-1]
    with steady(busy) as sizes:
        before = restarts(busy, victim["metadata"]["name"])
        freeze(victim)
        busy.wait_until(lambda: restarts(busy, victim["metadata"]["name"]) == before + 1)
        busy.wait_until_workers(WORKERS)
    assert set(sizes.seen) == {WORKERS}


def test_a_busy_pool_keeps_its_size_while_prometheus_is_gone(lab: Lab, busy: Release, outage_s: float) -> None:
    with steady(busy) as sizes:
        with lab.prometheus_gone():
            settle(outage_s)
            assert busy.scaled_object()["Fallback"] == "True"
        busy.wait_until(lambda: busy.scaled_object()["Fallback"] == "False")
    assert set(sizes.seen) == {WORKERS}


def test_keda_may_be_restarted(lab: Lab, busy: Release) -> None:
    with steady(busy) as sizes:
        lab.kubectl("-n", busy.namespace, "delete", "pods", "-l", KEDA)
        busy.wait_until(lambda: [*map(is_ready, keda(lab, busy))] == [True, True])
        busy.wait_until(lambda: busy.scaled_object()["Ready"] == "True")
    assert set(sizes.seen) == {WORKERS}
    busy.upgrade({**BUSY, "autoscaling": {**BUSY["autoscaling"], "cooldownPeriod": 5}})
    busy.wait_until_empty()  # so it decides again


def keda(lab: Lab, release: Release) -> list[Object]:
    found: list[Object] = lab.api.get(f"/api/v1/namespaces/{release.namespace}/pods", labelSelector=KEDA)["items"]
    return found


def test_an_empty_pool_gets_its_fallback_while_prometheus_is_gone_and_gives_it_back(lab: Lab, release: Release) -> None:
    release.upgrade()
    release.wait_until_empty()
    with lab.prometheus_gone():
        release.wait_until_workers(1)
        release.wait_until(lambda: release.health()["status"] == "healthy")
        with Load(release.url, MODEL, ITEM, at_once=1, profile=POOL) as load:
            release.wait_until(lambda: load.answered > 10)
    release.wait_until_empty()
