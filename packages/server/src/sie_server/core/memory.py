"""Which models must go so that another one fits. Knows nothing of how memory is read or models are unloaded.

The least recently used go first, idle ones before those with accepted requests. A pinned model never goes. A busy one
goes only when it has been there for `MIN_STAY_S`: two busy models that do not fit together would else evict each other
on every request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MIN_STAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory of a device in bytes: what is in use, by models or not, and what there is."""

    used_bytes: int
    limit_bytes: int

    def free_bytes(self, threshold_percent: float) -> int:
        """What may still be used while the device is at most so full; negative when it is fuller."""
        return int(self.limit_bytes * threshold_percent / 100) - self.used_bytes


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model. Times are monotonic seconds; `is_busy`: it has accepted items that are not answered."""

    name: str
    size_bytes: int
    used_at: float
    loaded_at: float
    is_pinned: bool = False
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Fits:
    """Nothing has to go."""


@dataclass(frozen=True, slots=True)
class Evict:
    """These have to go, in this order; busy ones finish first what they accepted."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """It would fit if busy models went, but not before this time."""

    until: float


@dataclass(frozen=True, slots=True)
class Impossible:
    """It does not fit even when everything goes that may: so many bytes are missing."""

    missing_bytes: int


Plan = Fits | Evict | Wait | Impossible


def make_room(residents: Sequence[Resident], free_bytes: int, need_bytes: int, now: float) -> Plan:
    """What has to happen before `need_bytes` more can be used. Models that load are no residents."""
    missing = need_bytes - free_bytes
    if missing <= 0:
        return Fits()
    movable = [each for each in residents if each.size_bytes > 0 and not each.is_pinned]
    if sum(each.size_bytes for each in movable) < missing:
        return Impossible(missing - sum(each.size_bytes for each in movable))
    settled = [each for each in movable if not each.is_busy or now - each.loaded_at >= MIN_STAY_S]
    if sum(each.size_bytes for each in settled) < missing:
        return Wait(min(each.loaded_at for each in movable if each not in settled) + MIN_STAY_S)
    return Evict(_fewest(sorted(settled, key=_order), missing))


def first_to_go(residents: Iterable[Resident]) -> str | None:
    """The idle model that goes first, whatever is needed; None when none may go."""
    idle = [each for each in residents if each.size_bytes > 0 and not each.is_pinned and not each.is_busy]
    return min(idle, key=_order).name if idle else None


def _order(resident: Resident) -> tuple[bool, float, str]:
    return resident.is_busy, resident.used_at, resident.name


def _fewest(ordered: Sequence[Resident], missing: int) -> tuple[str, ...]:
    """The front of the order that frees enough, less those that need not go because a later one is large."""
    chosen: list[Resident] = []
    for resident in ordered:
        if sum(each.size_bytes for each in chosen) >= missing:
            break
        chosen.append(resident)
    for resident in reversed(chosen):
        if sum(each.size_bytes for each in chosen) - resident.size_bytes >= missing:
            chosen.remove(resident)
    return tuple(each.name for each in chosen)
