import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from sie_cli.look import frame
from sie_cli.look.snapshot import Health, Snapshot
from sie_cli.scrape import Scrape
from sie_protocol.pools import PoolInfo, PoolListItem
from sie_protocol.status import ClusterSummary, WorkerInfo

NOW = 10_000.0


def worker(name: str, *, healthy: bool = True, models: int = 0, memory: int = 0) -> WorkerInfo:
    return WorkerInfo(
        name=name,
        url=f"http://{name}",
        gpu="l4",
        gpu_count=1,
        loaded_models=tuple(f"m{n}" for n in range(models)),
        queue_depth=7,
        memory_used_bytes=memory,
        memory_total_bytes=24 * frame.GIB if memory else 0,
        healthy=healthy,
        bundle="default",
        bundle_config_hash="",
    )


def snapshot(*workers: WorkerInfo, renewed: float = NOW, scrape: Scrape | None = None) -> Snapshot:
    pool = PoolListItem(name="tenant", state="pending", gpus={"l4": 2}, worker_count=1)
    lease = PoolInfo(
        name="tenant",
        spec={"gpus": {"l4": 2}, "minimum_worker_count": 0},
        status={"state": "pending", "assigned_workers": [], "created_at": 0.0, "last_renewed": renewed},
    )
    totals = ClusterSummary(worker_count=1, gpu_count=1, models_loaded=0, total_qps=2.5)
    health = Health(status="healthy", cluster=totals, workers=workers)
    return Snapshot("http://r", NOW, "0.1.10", health, (pool,), (lease,), scrape)


def text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_frame_tells_totals_reservations_demand_and_workers() -> None:
    scrape = Scrape(
        demand={("l4", "default"): {"default": 0, "tenant": 1}}, queue={("l4", "default"): {"a": 3, "b": 4}}
    )
    shown = text(frame.frame(snapshot(worker("a", memory=6 * frame.GIB), worker("b", healthy=False), scrape=scrape)))
    assert "healthy  1 worker  1 GPU  0 models loaded  14 queued  2.5 requests/s" in shown
    assert "tenant   pending   l4 x 2     1         20:00" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("l4", "a ", "b "))]
    assert rows == [
        ["l4", "default", "1", "tenant", "7", "0"],
        ["a", "l4", "default", "healthy", "7", "6.0", "of", "24", "GiB", "-"],
        ["b", "l4", "default", "away", "7", "-", "-"],
    ]


@pytest.mark.parametrize(("wanted", "says"), [(0.0, "at zero"), (1.0, "degraded")])
def test_a_cluster_without_workers_is_ill_only_when_somebody_waits(wanted: float, says: str) -> None:
    empty = ClusterSummary(worker_count=0, gpu_count=0, models_loaded=0, total_qps=0.0)
    found = replace(
        snapshot(worker("a", healthy=False), scrape=Scrape({("l4", "default"): {"default": wanted}})),
        health=Health(status="degraded", cluster=empty),
    )
    assert f"0.1.10  {says}  0 workers" in text(frame.headline(found))


def test_a_lease_counts_down_from_its_last_renewal_and_says_when_it_is_over() -> None:
    assert "0:59" in text(frame.frame(snapshot(renewed=NOW - 1141)))
    assert "over" in text(frame.frame(snapshot(renewed=NOW - 1200)))


def test_a_lease_is_as_long_as_its_router_says() -> None:
    found = snapshot(renewed=NOW - 100)
    found.leases[0]["status"]["lease_duration_s"] = 190.0
    assert "1:30" in text(frame.frame(found))


def test_unreadable_metrics_and_an_empty_cluster_say_what_to_do() -> None:
    shown = text(frame.frame(snapshot()))
    assert "metrics cannot be read: sie doctor" in shown
    assert "none runs; the first request starts one" in shown


def test_a_long_list_of_models_is_cut_and_counted() -> None:
    assert "m0, m1, m2, m3 and 3 more" in text(frame.workers(snapshot(worker("a", models=7))))
