"""Builds the index of a fleet: who is healthy, who belongs to which pool, who has which model."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sie_router.core.assign import assign
from sie_router.core.fleet import Fleet, Group, GroupKey, Index, Ready, Scope, Worker
from sie_router.core.health import in_rotation
from sie_router.core.leases import LEASE_S
from sie_router.core.pools import DEFAULT_POOL, Pool


def empty_fleet(configured: Iterable[Group] = (), profiles: Iterable[str] = (), lease_s: float = LEASE_S) -> Fleet:
    """A fleet without workers and pools. Profiles of configured groups are real profiles as well."""
    groups = tuple(dict.fromkeys(configured))
    names = {name.lower(): name for name in (*profiles, *(group.profile for group in groups))}
    return reindexed(Fleet(configured=groups, profiles=tuple(names.values()), lease_s=lease_s))


def reindexed(fleet: Fleet) -> Fleet:
    """The fleet with the index that its workers and pools make; independent of their order."""
    owners = assign(fleet.pools.values(), fleet.workers.values(), fleet.configured)
    spelling = {name.lower(): name for name in fleet.profiles}
    members: dict[str, list[Worker]] = defaultdict(list)
    for worker in sorted(fleet.workers.values(), key=lambda each: (each.ordinal, each.url)):
        if worker.profile:
            spelling.setdefault(worker.profile.lower(), worker.profile)
        if worker.is_healthy:
            members[owners.get(worker.url, DEFAULT_POOL)].append(worker)
    index = Index(
        scopes={pool: _scope(workers) for pool, workers in members.items()},
        owners=owners,
        profiles=spelling,
        configured={group.key: group for group in fleet.configured},
    )
    return replace(fleet, index=index)


def members(fleet: Fleet, pool: str) -> tuple[Worker, ...]:
    """The healthy workers that serve a pool."""
    return tuple(each for each in fleet.workers.values() if each.is_healthy and fleet.pool_of(each) == pool)


def is_complete(fleet: Fleet, pool: Pool) -> bool:
    """True when healthy workers are all that the pool reserves."""
    held = Counter(worker.profile.lower() for worker in members(fleet, pool.name))
    return all(held[profile.lower()] >= count for profile, count in pool.gpus.items())


def _scope(workers: Iterable[Worker]) -> Scope:
    by_group: dict[GroupKey, list[Worker]] = defaultdict(list)
    by_bundle: dict[str, list[Worker]] = defaultdict(list)
    for worker in workers:
        bundle = worker.bundle.lower()
        by_group[worker.profile.lower(), bundle].append(worker)
        by_bundle[bundle].append(worker)
    return Scope(
        {key: _ready(each) for key, each in by_group.items()},
        {key: _ready(each) for key, each in by_bundle.items()},
    )


def _ready(members: Sequence[Worker]) -> Ready:
    urls: list[str] = []
    loaded: dict[str, list[str]] = defaultdict(list)
    loading: dict[str, list[str]] = defaultdict(list)
    for worker in in_rotation(members):
        urls.append(worker.url)
        for model in worker.loaded:
            loaded[model].append(worker.url)
        for model in worker.loading:
            loading[model].append(worker.url)
    return Ready(
        urls=tuple(urls),
        loaded={model: tuple(held) for model, held in loaded.items()},
        loading={model: tuple(held) for model, held in loading.items()},
    )
