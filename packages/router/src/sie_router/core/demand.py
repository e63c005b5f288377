"""What the cluster lacks: a fold of unanswered requests with expiry. Computed from the clock, never by being looked at.

Demand outlives the Retry-After its client was given, so that it is still there when the client comes back; else an
autoscaler that polls slowly would see it vanish between two attempts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from sie_router.core.assign import shares
from sie_router.core.fleet import Demand, Fleet, Group
from sie_router.core.leases import is_expired
from sie_router.core.pools import DEFAULT_POOL, Pool

SLACK_S: Final = 30.0  # scrape plus poll of a typical autoscaler
BURST_S: Final = 1.0  # the shortest Retry-After: requests closer together are different ones
DemandKey = tuple[Group, str]


class Arrival(Enum):
    """How a request that found nobody came: for the first time, once more, or not at all, it has been waiting here."""

    NEW = auto()
    AGAIN = auto()
    STILL = auto()


def jittered(retry_after_s: int, draw: float) -> int:
    """A delay up to a quarter longer, in whole seconds: clients sent away together must not come back together.

    `draw` is uniform in [0, 1). Never shorter than asked for.
    """
    return retry_after_s + int(draw * (retry_after_s // 4 + 1))


def ttl_s(retry_after_s: float) -> float:
    """How long one miss counts, in seconds: longer than the longest delay that `jittered` makes of this one."""
    return retry_after_s * 1.5 + SLACK_S


def missed(
    fleet: Fleet, group: Group, pool: str, now: float, ttl_s: float, arrival: Arrival
) -> Mapping[DemandKey, Demand]:
    """The demand after one request found nobody in a group.

    Only what a pool reserves of configured groups counts, whatever callers ask for, and only while the pool has no
    healthy worker of the group.
    """
    key = (group, pool)
    if not _is_possible(fleet, key) or fleet.has_healthy(group, pool):
        return fleet.demand
    before = fleet.demand.get(key, Demand(now, now + ttl_s, since=now, most_until=now + ttl_s))
    return {**fleet.demand, key: _once_more(before, now, now + ttl_s, arrival)}


def _once_more(before: Demand, now: float, until: float, arrival: Arrival) -> Demand:
    demand = replace(before, until=max(until, before.until))
    if arrival is Arrival.STILL:
        return demand
    if now - demand.since >= BURST_S:
        demand = replace(demand, since=now, new=0, again=0)
    # Who was told a moment ago to come back may be here already: such a client is one, not two.
    new, again = demand.new + (arrival is Arrival.NEW), demand.again + (arrival is Arrival.AGAIN)
    demand, most = replace(demand, new=new, again=again), max(new, again)
    return replace(demand, most=most, most_until=until) if most >= demand.most or now > demand.most_until else demand


def pruned(fleet: Fleet, now: float) -> Mapping[DemandKey, Demand]:
    """The demand without what expired; the same object when nothing changed."""
    kept = {key: demand for key, demand in fleet.demand.items() if demand.until > now}
    return fleet.demand if len(kept) == len(fleet.demand) else kept


def unmet(fleet: Fleet) -> Mapping[DemandKey, Demand]:
    """The demand without what was met, and without pools that are gone; the same object when nothing changed."""
    kept = {
        key: demand for key, demand in fleet.demand.items() if _is_possible(fleet, key) and not fleet.has_healthy(*key)
    }
    return fleet.demand if len(kept) == len(fleet.demand) else kept


def wanted(fleet: Fleet, now: float) -> Mapping[DemandKey, int]:
    """For each group and pool that could lack workers: 1 when somebody waits for its first worker, else 0."""
    return {key: int(_unmet(fleet, key, now) is not None) for key in _possible(fleet)}


def unserved(fleet: Fleet, now: float) -> Mapping[Group, int]:
    """For each configured group: the most requests without a pool that came at once and found nobody.

    A pool has the workers it reserves, whoever comes. Clients that come again are not counted again.
    """
    found = {group: _unmet(fleet, (group, DEFAULT_POOL), now) for group in fleet.configured}
    return {group: 0 if demand is None else demand.most for group, demand in found.items()}


def waited_s(fleet: Fleet, key: DemandKey, now: float) -> float:
    """For how long somebody has been asking for a first worker."""
    demand = _unmet(fleet, key, now)
    return 0.0 if demand is None else now - demand.began


def at_once(fleet: Fleet, key: DemandKey) -> int:
    """How many asked for this together of late; 0: nobody counts them."""
    demand = fleet.demand.get(key)
    return 0 if demand is None else demand.new + demand.again


def _unmet(fleet: Fleet, key: DemandKey, now: float) -> Demand | None:
    demand = fleet.demand.get(key)
    return demand if demand is not None and demand.until > now and not fleet.has_healthy(*key) else None


def reserved(fleet: Fleet, unix_now: float) -> Mapping[Group, int]:
    """For each configured group: the workers that pools with a running lease reserve."""
    return _summed(
        fleet, ((group, count) for pool in _leased(fleet, unix_now) for group, count in _groups(fleet, pool))
    )


def warm(fleet: Fleet, unix_now: float) -> Mapping[Group, int]:
    """For each configured group: the workers that pools with a running lease want to have at any time."""
    return _summed(fleet, (floor for pool in _leased(fleet, unix_now) for floor in _floors(fleet, pool)))


def _floors(fleet: Fleet, pool: Pool) -> Iterator[tuple[Group, int]]:
    """A pool's floor, spread over its groups in configured order: the cheapest first."""
    left = pool.minimum_worker_count
    by_group = dict(_groups(fleet, pool))
    for group in fleet.configured:
        here = min(left, by_group.get(group, 0))
        left -= here
        yield group, here


def _summed(fleet: Fleet, parts: Iterator[tuple[Group, int]]) -> Mapping[Group, int]:
    totals = dict.fromkeys(fleet.configured, 0)
    for group, count in parts:
        totals[group] += count
    return totals


def _leased(fleet: Fleet, unix_now: float) -> Iterator[Pool]:
    return (pool for pool in fleet.pools.values() if not is_expired(pool, unix_now, fleet.lease_s))


def _groups(fleet: Fleet, pool: Pool) -> Iterator[tuple[Group, int]]:
    return ((share.group, share.count) for share in shares(pool, fleet.configured) if share.group is not None)


def _possible(fleet: Fleet) -> Iterator[DemandKey]:
    for group in fleet.configured:
        yield group, DEFAULT_POOL
    for pool in fleet.pools.values():
        for group, _ in _groups(fleet, pool):
            yield group, pool.name


def _is_possible(fleet: Fleet, key: DemandKey) -> bool:
    group, name = key
    if name == DEFAULT_POOL:
        return group in fleet.configured
    pool = fleet.pools.get(name)
    return pool is not None and any(group == each for each, _ in _groups(fleet, pool))
