"""Who owns this worker? A function of intent and workers alone: every router finds the same answer without asking.

The oldest pool chooses first, then the name decides; the lowest ordinal is chosen first, so that a StatefulSet that
shrinks from the top loses unreserved workers before reserved ones. There is no memory: a worker stays with its pool
because the same question has the same answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sie_router.core.fleet import Group, GroupKey, Worker
from sie_router.core.pools import Pool


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a pool's reservation: so many workers of this machine profile and bundle.

    `group` is the configured group that provides them, None if there is none. `bundle` None takes any.
    """

    profile: str
    bundle: str | None
    count: int
    group: Group | None


def shares(pool: Pool, configured: Iterable[Group]) -> tuple[Share, ...]:
    """What a pool reserves, by configured group.

    A pool that names no bundle gets that of the first configured group of each machine profile.
    """
    groups = tuple(configured)
    return tuple(_share(pool, profile, count, groups) for profile, count in sorted(pool.gpus.items()))


def _share(pool: Pool, profile: str, count: int, groups: tuple[Group, ...]) -> Share:
    wanted = None if pool.bundle is None else pool.bundle.lower()
    for group in groups:
        if group.key[0] == profile.lower() and wanted in (None, group.key[1]):
            return Share(profile.lower(), group.key[1], count, group)
    return Share(profile.lower(), wanted, count, None)


def assign(pools: Iterable[Pool], workers: Iterable[Worker], configured: Iterable[Group]) -> Mapping[str, str]:
    """Which pool each reserved worker belongs to, by URL. Workers that are absent are for everybody."""
    groups = tuple(configured)
    free: dict[GroupKey, list[Worker]] = defaultdict(list)
    for worker in sorted(workers, key=_rank, reverse=True):
        if worker.is_assignable:
            free[worker.profile.lower(), worker.bundle.lower()].append(worker)
    owners: dict[str, str] = {}
    for pool in sorted(pools, key=lambda each: (each.created_at, each.name)):
        for share in shares(pool, groups):
            for worker in _taken(free, share):
                owners[worker.url] = pool.name
    return owners


def _taken(free: dict[GroupKey, list[Worker]], share: Share) -> Iterable[Worker]:
    """Take workers for one share out of `free`, whose lists end with the one to take first."""
    if share.bundle is not None:
        candidates = free.get((share.profile, share.bundle), [])
        return [candidates.pop() for _ in range(min(share.count, len(candidates)))]
    lists = [workers for (profile, _), workers in free.items() if profile == share.profile]
    taken: list[Worker] = []
    while len(taken) < share.count and any(lists):
        taken.append(min((workers for workers in lists if workers), key=lambda each: _rank(each[-1])).pop())
    return taken


def _rank(worker: Worker) -> tuple[int, str, str]:
    return (worker.ordinal, worker.name, worker.url)
