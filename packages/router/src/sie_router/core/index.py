"""Builds the index of a fleet: who is healthy, who belongs to which pool, who has which model."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    spelling = {name.lower(): name for name in fleet.profiles}
    workers = sorted(fleet.workers.values(), key=lambda each: (each.ordinal, each.url))
    for worker in workers:
        if worker.profile:
            spelling.setdefault(worker.profile.lower(), worker.profile)
    scopes, owners = _scopes(fleet, workers)
    index = Index(
        scopes=scopes,
        soon=_soon(fleet, workers),
        owners=owners,
        profiles=spelling,
        configured={group.key: group for group in fleet.configured},
    )
    return replace(fleet, index=index)


def _scopes(fleet: Fleet, workers: Sequence[Worker]) -> tuple[Mapping[str, Scope], Mapping[str, str]]:
    """What requests of each pool would find if these were all workers, and who of them belongs to which pool."""
    owners = assign(fleet.pools.values(), workers, fleet.configured)
    members: dict[str, list[Worker]] = defaultdict(list)
    for worker in workers:
        if worker.is_healthy:
            members[owners.get(worker.url, DEFAULT_POOL)].append(worker)
    return {pool: _scope(each) for pool, each in members.items()}, owners


def _soon(fleet: Fleet, workers: Sequence[Worker]) -> Mapping[str, Scope]:
    """The scopes with those ready that are coming; none while nobody is, which is nearly always.

    The others serve nobody who asks for this, but decide what is left for which pool.
    """
    if not any(worker.is_coming for worker in workers):
        return {}
    others = bool(fleet.pools)
    ready = [_arrived(each) if each.is_coming else each for each in workers if others or each.is_coming]
    return _scopes(fleet, ready)[0]


def _arrived(worker: Worker) -> Worker:
    return replace(worker, is_ready=True, is_connected=True)


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
