"""Which cached models make room for another one. Knows sizes and times of last use; touches no disk."""

from collections.abc import Iterable
from dataclasses import dataclass

MARGIN_BYTES = 64 * 1024 * 1024  # stays free for logs and temporary files of whoever shares the disk


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds the cache, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Cached:
    """A model in the cache that nobody uses. `last_used` is wall-clock time, which processes share."""

    name: str
    size: int
    last_used: float


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """`pressure_percent` of the disk is where eviction begins; `cache_bytes` (None: any) is never exceeded."""

    pressure_percent: float = 85.0
    cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Evict:
    """What to delete, first the model that was not used for the longest time."""

    models: tuple[Cached, ...]


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Deleting everything would not do; `short_bytes` would still be missing."""

    short_bytes: int


def make_room(needed: int, idle: Iterable[Cached], cached_bytes: int, disk: Disk, limits: DiskLimits) -> Evict | NoRoom:
    """What to delete before `needed` bytes are written beside `cached_bytes` of models, of which `idle` may go.

    A disk that others fill beyond the pressure point is no reason to delete models: that would not help.
    """
    candidates = sorted(idle, key=lambda each: (each.last_used, each.name))
    evictable = sum(each.size for each in candidates)
    over_cache = cached_bytes + needed - limits.cache_bytes if limits.cache_bytes is not None else 0
    must = max(needed + MARGIN_BYTES - disk.free, over_cache, 0) if needed else 0
    if must > evictable:
        return NoRoom(must - evictable)
    wanted = disk.total - disk.free + needed - int(disk.total * limits.pressure_percent / 100)
    goal = max(must, wanted) if wanted <= evictable else must
    chosen: list[Cached] = []
    for each in candidates:
        if sum(one.size for one in chosen) >= goal:
            break
        chosen.append(each)
    return Evict(tuple(chosen))
