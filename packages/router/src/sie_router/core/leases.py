"""Is a pool's lease still running? Pure arithmetic on the wall clock, which several routers read differently."""

from collections.abc import Iterable
from typing import Final

from sie_router.core.pools import Pool

LEASE_S: Final = 1200.0
# No two routers' clocks may differ by more than this share of a lease. Added to every lease, so that the router whose
# clock is furthest ahead still does not take away what another one has just renewed.
SKEW_SHARE: Final = 1 / 40
MAX_SKEW_S: Final = LEASE_S * SKEW_SHARE


def is_expired(pool: Pool, now: float, lease_s: float = LEASE_S) -> bool:
    """True when nobody renewed the pool for a whole lease, on any allowed clock. `now` is Unix seconds."""
    return now - pool.last_renewed > lease_s + lease_s * SKEW_SHARE


def left_s(pool: Pool, now: float, lease_s: float = LEASE_S) -> float:
    """Seconds until the pool is deleted unless somebody renews it."""
    return max(0.0, pool.last_renewed + lease_s + lease_s * SKEW_SHARE - now)


def expired(pools: Iterable[Pool], now: float, lease_s: float = LEASE_S) -> tuple[Pool, ...]:
    """The pools to delete."""
    return tuple(pool for pool in pools if is_expired(pool, now, lease_s))


def unless_renewed(current: Pool | None, now: float, lease_s: float = LEASE_S) -> Pool | None:
    """What is left of a pool that was seen expired: itself, if somebody renewed it meanwhile."""
    return None if current is None or is_expired(current, now, lease_s) else current
