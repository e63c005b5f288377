"""Is a pool's lease still running? Pure arithmetic on the wall clock, which several routers read differently."""

from collections.abc import Iterable
from typing import Final

from sie_router.core.pools import Pool

LEASE_S: Final = 1200.0
# No two routers' clocks may differ by more than this. Added to every lease, so that the router whose clock is furthest
# ahead still does not take away what another one has just renewed.
MAX_SKEW_S: Final = 30.0


def is_expired(pool: Pool, now: float) -> bool:
    """True when nobody renewed the pool for a whole lease, on any allowed clock. `now` is Unix seconds."""
    return now - pool.last_renewed > LEASE_S + MAX_SKEW_S


def left_s(pool: Pool, now: float) -> float:
    """Seconds until the pool is deleted unless somebody renews it."""
    return max(0.0, pool.last_renewed + LEASE_S + MAX_SKEW_S - now)


def expired(pools: Iterable[Pool], now: float) -> tuple[Pool, ...]:
    """The pools to delete."""
    return tuple(pool for pool in pools if is_expired(pool, now))


def unless_renewed(current: Pool | None, now: float) -> Pool | None:
    """What is left of a pool that was seen expired: itself, if somebody renewed it meanwhile."""
    return None if current is None or is_expired(current, now) else current
