"""Resource pools as intent: what a tenant asked for and when it last said so. Everything else is derived.

A pool reserves workers for its owner. Which workers those are is `assign`'s answer, whether the lease still runs is
`leases`'; neither is stored, so routers that read the same intent agree without talking to each other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sie_protocol.errors import ErrorCode, Problem

DEFAULT_POOL: Final = "default"
MAX_WORKERS: Final = 64  # of one pool, where nothing else is set
MAX_NAME: Final = 40  # fits into the names of Kubernetes objects and into label values, whatever we put in front
_TICK_S: Final = 1e-6  # the precision with which Kubernetes keeps times
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 1123


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` names a token without revealing it; empty when callers are not told apart."""

    id: str = ""
    is_admin: bool = False


ANYONE: Final = Caller(is_admin=True)  # without authentication everybody may do everything


@dataclass(frozen=True, slots=True)
class Pool:
    """One reservation. `gpus` maps a machine profile in its configured spelling to a number of workers, at least 1.

    `owner` is the id of the caller that made it; empty: everybody's. `created_at` and `last_renewed` are Unix seconds,
    as they cross processes. Every write moves `last_renewed` forward, so of two versions the later one is known.
    """

    name: str
    gpus: Mapping[str, int]
    minimum_worker_count: int = 0
    bundle: str | None = None
    owner: str = ""
    created_at: float = 0.0
    last_renewed: float = 0.0

    @property
    def reservation(self) -> tuple[object, ...]:
        """All that an assignment depends on; a renewal leaves it as it is."""
        return (self.name, self.created_at, self.bundle, self.gpus)

    @property
    def size(self) -> int:
        """How many workers it reserves."""
        return sum(self.gpus.values())

    def is_for(self, caller: Caller) -> bool:
        """True when this caller may use and change the pool."""
        return caller.is_admin or self.owner in ("", caller.id)

    def is_before(self, other: "Pool") -> bool:
        """True when this is an earlier version of the same reservation."""
        return self.created_at == other.created_at and self.last_renewed < other.last_renewed


def within_bounds(pool: Pool, max_workers: int) -> Pool | None:
    """A stored pool as it may be used: it itself, or one with counts of at least 1 and `max_workers` in all.

    Whoever writes to the store by hand is not asked for reason first. None when nothing is left.
    """
    gpus: dict[str, int] = {}
    for profile, count in pool.gpus.items():
        most = min(count, max_workers - sum(gpus.values()))
        if most >= 1:
            gpus[profile] = most
    if not gpus:
        return None
    floor = min(max(pool.minimum_worker_count, 0), sum(gpus.values()))
    is_sound = (gpus, floor) == (pool.gpus, pool.minimum_worker_count)
    return pool if is_sound else replace(pool, gpus=gpus, minimum_worker_count=floor)


def pool_key(name: str) -> str:
    """The name in the only spelling in which pools are stored."""
    return name.strip().lower()


def is_name(key: str) -> bool:
    """True for an RFC 1123 label of at most `MAX_NAME` characters: no other name was ever stored."""
    return len(key) <= MAX_NAME and _LABEL.fullmatch(key) is not None


def checked_name(name: str) -> str:
    """The name of a pool that may be created.

    Raises:
        Problem: INVALID_INPUT when it is no RFC 1123 label of at most `MAX_NAME` characters, or reserved.
    """
    key = pool_key(name)
    if key == DEFAULT_POOL:
        raise Problem(
            ErrorCode.INVALID_INPUT,
            f"the pool '{DEFAULT_POOL}' is every worker that no other pool reserves; choose another name",
        )
    if not is_name(key):
        raise Problem(
            ErrorCode.INVALID_INPUT,
            f"'{name[: MAX_NAME + 20]}' is no pool name; expected letters, digits and dashes, beginning and ending "
            f"with a letter or digit, at most {MAX_NAME} characters",
        )
    return key


def put(current: Pool | None, asked: Pool, caller: Caller) -> Pool:
    """The pool after a caller asked for it: the new specification holds, and the lease begins anew.

    Raises:
        Problem: FORBIDDEN when the name belongs to somebody else.
    """
    if current is None:
        return asked
    _allow(current, caller)
    renewed = _later(current, asked.last_renewed)
    return replace(asked, owner=current.owner, created_at=current.created_at, last_renewed=renewed)


def renew(current: Pool | None, name: str, caller: Caller, now: float) -> Pool:
    """The pool with a lease that begins at `now`.

    Raises:
        Problem: POOL_NOT_FOUND, FORBIDDEN.
    """
    pool = known(current, name, caller)
    return replace(pool, last_renewed=_later(pool, now))


def known(current: Pool | None, name: str, caller: Caller) -> Pool:
    """The pool, if it exists and is for this caller.

    Raises:
        Problem: POOL_NOT_FOUND, FORBIDDEN.
    """
    if current is None:
        raise no_pool(name)
    _allow(current, caller)
    return current


def no_pool(name: str) -> Problem:
    """The refusal of a pool that does not exist. Names no others: they belong to other tenants."""
    message = f"pool '{name[:MAX_NAME]}' does not exist, or its lease ended; POST /v1/pools makes one"
    return Problem(ErrorCode.POOL_NOT_FOUND, message, details={"pool": name[:MAX_NAME]})


def not_yours(name: str) -> Problem:
    """The refusal of somebody else's pool."""
    message = f"pool '{name}' belongs to another token; use the token that made it, or another name"
    return Problem(ErrorCode.FORBIDDEN, message, details={"pool": name})


def _allow(pool: Pool, caller: Caller) -> None:
    if not pool.is_for(caller):
        raise not_yours(pool.name)


def _later(pool: Pool, now: float) -> float:
    """A moment after the pool's last write, also where this router's clock is behind that of the last writer."""
    return max(now, pool.last_renewed + _TICK_S)
