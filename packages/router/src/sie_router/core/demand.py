"""What the cluster lacks: a fold of unanswered requests with expiry. Computed from the clock, never by being looked at.

A wish outlives the Retry-After its client was given, so that it is still there when the client comes back; else an
autoscaler that polls slowly would see the wish vanish between two attempts.
"""

from collections.abc import Mapping
from typing import Final

from sie_router.core.fleet import DEFAULT_POOL, Fleet, Group

SLACK_S: Final = 30.0  # scrape plus poll of a typical autoscaler
Wish = tuple[Group, str]


def ttl_s(retry_after_s: float) -> float:
    """How long one miss counts, in seconds."""
    return retry_after_s * 1.5 + SLACK_S


def missed(fleet: Fleet, group: Group, pool: str, expires_at: float) -> Mapping[Wish, float]:
    """The demand after one request found nobody in a group.

    Only configured groups count, whatever callers ask for, and only while no healthy worker of the group exists.
    """
    if group not in fleet.configured or pool != DEFAULT_POOL or fleet.has_healthy(group):
        return fleet.demand
    wish = (group, pool)
    return {**fleet.demand, wish: max(expires_at, fleet.demand.get(wish, expires_at))}


def pruned(fleet: Fleet, now: float) -> Mapping[Wish, float]:
    """The demand without what expired or was met; the same object when nothing changed."""
    kept = {wish: until for wish, until in fleet.demand.items() if until > now and not fleet.has_healthy(wish[0])}
    return fleet.demand if len(kept) == len(fleet.demand) else kept


def wanted(fleet: Fleet, now: float) -> Mapping[Wish, int]:
    """For each configured group and pool: 1 when somebody waits for its first worker, else 0."""
    return {
        (group, DEFAULT_POOL): int(
            fleet.demand.get((group, DEFAULT_POOL), now) > now and not fleet.has_healthy(group),
        )
        for group in fleet.configured
    }
