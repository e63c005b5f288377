"""May this be reserved? Checks what a caller asked for against what the cluster could ever have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sie_protocol.errors import ErrorCode, Problem
from sie_router.core.fleet import Fleet, GroupKey
from sie_router.core.pools import Pool
from sie_router.core.route import real_profile

MAX_LABEL: Final = 63


@dataclass(frozen=True, slots=True)
class Reservation:
    """A checked specification; profiles are in their configured spelling."""

    gpus: Mapping[str, int]
    bundle: str | None
    minimum_worker_count: int


def reservation(
    fleet: Fleet, gpus: Mapping[str, int], bundle: str | None, minimum_worker_count: int, max_workers: int
) -> Reservation:
    """Resolve machine profiles as a request would, and check every number.

    Raises:
        Problem: INVALID_INPUT; the message says what there is.
    """
    wanted = bundle.strip().lower() if bundle else None
    for name in (*gpus, *filter(None, [wanted])):
        if not name.strip() or len(name) > MAX_LABEL:
            raise _invalid(f"'{name[:MAX_LABEL]}' is no name; expected 1 to {MAX_LABEL} characters")
    resolved: dict[str, int] = {}
    for asked, count in gpus.items():
        profile = _profile(fleet, asked, wanted)
        if profile in resolved:
            raise _invalid(f"gpus names machine profile '{profile}' twice")
        if count < 1:
            raise _invalid(f"gpus.{asked} is {count}; expected at least 1")
        resolved[profile] = count
    total = sum(resolved.values())
    if not total:
        raise _invalid("a pool reserves at least one worker; name it in gpus, for example {'l4': 1}")
    if total > max_workers:
        raise _invalid(f"gpus asks for {total} workers; one pool may reserve {max_workers}")
    if not 0 <= minimum_worker_count <= total:
        raise _invalid(f"minimum_worker_count is {minimum_worker_count}; expected 0 to {total}, what gpus reserves")
    return Reservation(resolved, wanted, minimum_worker_count)


def check_share(pools: Iterable[Pool], asked: Pool, max_pools: int, max_workers: int | None) -> None:
    """Check that an owner has no more than its share of pools and workers with what it asks for.

    A pool may be among `pools` twice, as it is and as it is about to be: the larger one counts. Somebody else's name is
    for the store to refuse.

    Raises:
        Problem: RESOURCE_EXHAUSTED; the message names the bound.
    """
    known = tuple(pools)
    if any(pool.name == asked.name and pool.owner != asked.owner for pool in known):
        return
    sizes: dict[str, int] = {}
    for pool in known:
        if pool.owner == asked.owner:
            sizes[pool.name] = max(sizes.get(pool.name, 0), pool.size)
    is_new = sizes.pop(asked.name, None) is None
    if is_new and len(sizes) >= max_pools:
        raise _beyond(f"this token has {len(sizes)} pools, and one token may have {max_pools}")
    total = sum(sizes.values())
    if max_workers is not None and total + asked.size > max_workers:
        raise _beyond(
            f"this token's other pools reserve {total} workers and this one asks for {asked.size}; all pools of one "
            f"token may reserve {max_workers}"
        )


def _beyond(what: str) -> Problem:
    message = f"{what}; delete a pool, ask for fewer workers, or wait until a lease ends"
    return Problem(ErrorCode.RESOURCE_EXHAUSTED, message, retry_after_s=60)


def _profile(fleet: Fleet, asked: str, bundle: str | None) -> str:
    """The profile in its configured spelling, if some worker of it and the bundle exists or could be started."""
    if not fleet.configured and not fleet.index.profiles:
        return asked.strip().lower()  # nothing is known yet that one could check against
    key = real_profile(fleet, asked.strip())
    known: list[GroupKey] = [group.key for group in fleet.configured]
    known += [(worker.profile.lower(), worker.bundle.lower()) for worker in fleet.workers.values()]
    if key is None or not any(key == profile and bundle in (None, other) for profile, other in known):
        wanted = f"machine profile '{asked}'" + (f" with bundle '{bundle}'" if bundle else "")
        have = sorted({f"{profile}:{other}" for profile, other in known if profile})
        message = f"no workers of {wanted} are configured; there are (profile:bundle): {', '.join(have) or 'none'}"
        names = sorted({fleet.index.profiles[profile] for profile, _ in known if profile})
        raise Problem(ErrorCode.INVALID_INPUT, message, details={"configured_gpu_types": names})
    return fleet.index.profiles[key]


def _invalid(message: str) -> Problem:
    return Problem(ErrorCode.INVALID_INPUT, message)
