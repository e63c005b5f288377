"""A snapshot as tables. Pure: snapshot in, something for rich to print out."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sie_cli.look.snapshot import Snapshot
from sie_cli.scrape import Scrape
from sie_protocol.items import ModelInfo
from sie_protocol.pools import PoolInfo, PoolListItem, PoolStatus
from sie_protocol.status import WorkerInfo

LEASE_S: Final = 1200.0  # of routers that do not tell theirs
ALMOST_OVER_S: Final = 120.0
GIB: Final = 1 << 30
MODELS_SHOWN: Final = 4


def frame(snapshot: Snapshot) -> Group:
    """All of `sie top`: totals, pools, demand, workers."""
    reservations = pools(snapshot.pools, snapshot.leases, snapshot.at)
    return Group(headline(snapshot), Text(), reservations, Text(), demand(snapshot), Text(), workers(snapshot))


def headline(snapshot: Snapshot) -> Text:
    """One line of totals."""
    health = snapshot.health
    cluster = health.cluster
    queued = sum(worker.queue_depth for worker in health.workers)
    # A router without workers calls itself degraded; while nobody waits for one that is as it should be.
    state = "at zero" if not cluster.worker_count and _is_unwanted(snapshot.scrape) else health.status
    return Text.assemble(
        ("SIE ", "bold"),
        (snapshot.url, "bold green"),
        f"  {snapshot.version}  ",
        (state, "yellow" if state == "degraded" else "green"),
        f"  {_counted(cluster.worker_count, 'worker')}  {_counted(cluster.gpu_count, 'GPU')}"
        f"  {_counted(cluster.models_loaded, 'model')} loaded  {queued} queued  {cluster.total_qps:.1f} requests/s",
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _is_unwanted(scrape: Scrape | None) -> bool:
    return scrape is not None and not any(any(pools.values()) for pools in scrape.demand.values())


def pools(listed: Sequence[PoolListItem], leases: Sequence[PoolInfo], now: float) -> Table:
    """Reservations, their workers, and how long their leases still run."""
    table = _table("POOL", "STATE", "RESERVED", "WORKERS", "LEASE")
    ends = {info["name"]: _end(info["status"]) for info in leases}
    for pool in listed:
        left_s = ends[pool["name"]] - now if pool["name"] in ends else None
        style = "green" if pool["state"] == "active" else "yellow"
        table.add_row(
            pool["name"], Text(pool["state"], style), reserved(pool), str(pool["worker_count"]), lease(left_s)
        )
    return table


def _end(status: PoolStatus) -> float:
    return status["last_renewed"] + status.get("lease_duration_s", LEASE_S)


def reserved(pool: PoolListItem) -> str:
    """What a pool asks for, for example "l4 x 2"."""
    return ", ".join(f"{profile} x {count}" for profile, count in sorted(pool["gpus"].items())) or "-"


def lease(left_s: float | None) -> Text:
    """Minutes and seconds to the end of a lease; a dash where there is none."""
    if left_s is None:
        return Text("-", "dim")
    if left_s <= 0:
        return Text("over", "red")
    return Text(f"{int(left_s) // 60}:{int(left_s) % 60:02}", "yellow" if left_s < ALMOST_OVER_S else "")


def demand(snapshot: Snapshot) -> Table:
    """What wakes and keeps the workers of each configured group."""
    table = _table("PROFILE", "BUNDLE", "HEALTHY", "DEMAND", "QUEUED", "REQUESTS/MIN")
    if snapshot.scrape is None:
        table.add_row(Text("metrics cannot be read: sie doctor", "red"))
        return table
    for profile, bundle in sorted(snapshot.scrape.demand):
        wanting = _wanting(snapshot.scrape, (profile, bundle))
        queued = sum(snapshot.scrape.queue.get((profile, bundle), {}).values())
        recent = sum(snapshot.scrape.activity.get((profile, bundle), {}).values())
        here = [each for each in snapshot.health.workers if (each.gpu, each.bundle) == (profile, bundle)]
        healthy = sum(each.healthy for each in here)
        table.add_row(profile, bundle, str(healthy), wanting, f"{queued:.0f}", f"{recent:.0f}")
    return table


def _wanting(scrape: Scrape, group: tuple[str, str]) -> Text:
    names = sorted(pool for pool, value in scrape.demand[group].items() if value > 0)
    return Text(", ".join(names), "bold magenta") if names else Text("-", "dim")


def workers(snapshot: Snapshot) -> Table:
    """Every worker that the router knows of."""
    table = _table("WORKER", "PROFILE", "BUNDLE", "STATE", "QUEUED", "MEMORY", "MODELS")
    known = [worker for worker in snapshot.health.workers if worker.healthy or worker.name]
    for worker in known:
        state = Text("healthy", "green") if worker.healthy else Text("away", "dim")
        cells = (worker.gpu, worker.bundle, state, str(worker.queue_depth), memory(worker), shown(worker.loaded_models))
        table.add_row(worker.name or worker.url, *cells)
    if not known:
        table.add_row(Text("none runs; the first request starts one", "dim"))
    return table


def memory(worker: WorkerInfo) -> str:
    """Used and all device memory; a dash where a worker does not tell."""
    if not worker.memory_total_bytes:
        return "-"
    return f"{worker.memory_used_bytes / GIB:.1f} of {worker.memory_total_bytes / GIB:.0f} GiB"


def shown(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MODELS_SHOWN
    return ", ".join(names[:MODELS_SHOWN]) + (f" and {more} more" if more > 0 else "") or "-"


def catalogue(models: Sequence[ModelInfo]) -> Table:
    """All models, one a line."""
    table = _table("MODEL", "STATE", "INPUTS", "OUTPUTS", "TOKENS", "BUNDLES", "WORKERS")
    for model in models:
        state = model.get("state", "")
        dims = model.get("dims", {})
        outputs = [f"{name} {dims[name]}" if name in dims else name for name in model.get("outputs", [])]
        table.add_row(
            model["name"],
            Text(state, {"loaded": "green", "loading": "yellow", "failed": "red"}.get(state, "dim")),
            ", ".join(model.get("inputs", [])),
            ", ".join(outputs),
            str(model.get("max_sequence_length") or "-"),
            ", ".join(model.get("bundles", [])),
            str(model.get("worker_count", 0)),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in ("QUEUED", "TOKENS", "REQUESTS/MIN") else "left")
    return table
