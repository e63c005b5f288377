"""What pools look like from outside: pure functions over the fleet."""

from collections import Counter

from sie_protocol.pools import AssignedWorker, PoolInfo, PoolListItem, PoolSpec, PoolStatus
from sie_protocol.status import PoolSummary
from sie_router.core.fleet import Fleet
from sie_router.core.index import is_complete, members
from sie_router.core.leases import left_s
from sie_router.core.pools import DEFAULT_POOL, Caller, Pool

ACTIVE, PENDING = "active", "pending"


def pool_info(fleet: Fleet, pool: Pool) -> PoolInfo:
    """One pool with the healthy workers that serve it; pending while they are fewer than it reserves."""
    spec = PoolSpec(gpus=dict(pool.gpus), minimum_worker_count=pool.minimum_worker_count)
    if pool.bundle is not None:
        spec["bundle"] = pool.bundle
    status = PoolStatus(
        state=_state(fleet, pool),
        assigned_workers=_workers(fleet, pool.name),
        created_at=pool.created_at,
        last_renewed=pool.last_renewed,
        lease_duration_s=fleet.lease_s,
    )
    return PoolInfo(name=pool.name, spec=spec, status=status)


def default_pool_info(fleet: Fleet) -> PoolInfo:
    """Every worker that nobody reserved. It asks for nothing, lacks nothing and has no lease."""
    workers = _workers(fleet, DEFAULT_POOL)
    spec = PoolSpec(gpus=dict(Counter(worker["gpu"] for worker in workers)), minimum_worker_count=0)
    status = PoolStatus(state=ACTIVE, assigned_workers=workers, created_at=0.0, last_renewed=0.0)
    return PoolInfo(name=DEFAULT_POOL, spec=spec, status=status)


def pool_items(fleet: Fleet, caller: Caller) -> list[PoolListItem]:
    """The pools that a caller may use, by name; the default one first."""
    mine = [pool for _, pool in sorted(fleet.pools.items()) if pool.is_for(caller)]
    infos = [default_pool_info(fleet), *(pool_info(fleet, pool) for pool in mine)]
    return [
        PoolListItem(
            name=info["name"],
            state=info["status"]["state"],
            gpus=info["spec"]["gpus"],
            worker_count=len(info["status"]["assigned_workers"]),
        )
        for info in infos
    ]


def pool_summaries(fleet: Fleet, caller: Caller, unix_now: float) -> tuple[PoolSummary, ...]:
    """The same with what is left of their leases."""
    return tuple(
        PoolSummary(
            name=item["name"],
            state=item["state"],
            gpus=item["gpus"],
            worker_count=item["worker_count"],
            lease_s=left_s(fleet.pools[item["name"]], unix_now, fleet.lease_s) if item["name"] in fleet.pools else None,
        )
        for item in pool_items(fleet, caller)
    )


def _state(fleet: Fleet, pool: Pool) -> str:
    return ACTIVE if is_complete(fleet, pool) else PENDING


def _workers(fleet: Fleet, pool: str) -> list[AssignedWorker]:
    held = sorted(members(fleet, pool), key=lambda worker: (worker.name, worker.url))
    return [AssignedWorker(name=worker.name, url=worker.url, gpu=worker.profile) for worker in held]
