"""Chooses the next batch of a queue. Knows nothing of clocks, threads or models.

Order: entries are served first come, first served, with one exception. An entry that has not yet waited `patience_s`
may be overtaken by one that came shortly after it and is closer in length to the oldest entry, because batches of
similar length waste less on devices that pad. The oldest entry is in every batch and an impatient one is never
overtaken, so nothing starves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

WINDOW_BATCHES = 4  # how many batches ahead an entry may be picked from; also bounds the work of one choice


class Entry(Protocol):
    """One item that waits for the device. Times are monotonic seconds."""

    @property
    def tokens(self) -> int:
        """Tokens the model will read for it."""

    @property
    def arrived_at(self) -> float:
        """When it joined the queue."""

    @property
    def deadline(self) -> float | None:
        """When its answer stops being useful."""

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for it any more."""


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch; no items means no batch. `patience_s` 0 means strictly first come, first served.

    `max_padded`: how long a batch may be with all its entries padded to the longest; None where nothing is padded.
    """

    max_tokens: int
    max_items: int
    patience_s: float = 0.0
    max_padded: int | None = None


@dataclass(frozen=True, slots=True)
class Taken(Generic[E]):
    """What one choice yields; every entry of the queue is in exactly one of the four tuples.

    `wake_at` is when the earliest deadline in `rest` passes, or None when there is none.
    """

    batch: tuple[E, ...]
    rest: tuple[E, ...]
    expired: tuple[E, ...]
    cancelled: tuple[E, ...]
    wake_at: float | None


def take(queue: Sequence[E], limits: Limits, now: float) -> Taken[E]:
    """Choose the next batch of a queue in order of arrival.

    The batch keeps all limits, except that an entry larger than the token budget goes alone.
    """
    cancelled = tuple(entry for entry in queue if entry.cancelled)
    expired = tuple(entry for entry in queue if not entry.cancelled and _is_expired(entry, now))
    live = [entry for entry in queue if not entry.cancelled and not _is_expired(entry, now)]
    chosen = _choose(live, limits, now)
    rest = tuple(entry for index, entry in enumerate(live) if index not in chosen)
    deadlines = [entry.deadline for entry in rest if entry.deadline is not None]
    return Taken(
        batch=tuple(live[index] for index in sorted(chosen)),
        rest=rest,
        expired=expired,
        cancelled=cancelled,
        wake_at=min(deadlines, default=None),
    )


def _is_expired(entry: Entry, now: float) -> bool:
    return entry.deadline is not None and entry.deadline <= now


def _choose(live: Sequence[Entry], limits: Limits, now: float) -> set[int]:
    if not live or not limits.max_items:
        return set()
    impatient = _impatient(live, limits, now)
    chosen, tokens = _fill(range(impatient), live, limits, set(), 0)
    if len(chosen) < impatient:
        return chosen
    window = range(impatient, _window_end(live, limits, impatient))
    by_likeness = sorted(window, key=lambda index: (abs(live[index].tokens - live[0].tokens), index))
    chosen, _ = _fill(by_likeness if limits.patience_s else window, live, limits, chosen, tokens)
    return chosen


def _impatient(live: Sequence[Entry], limits: Limits, now: float) -> int:
    """How many entries at the front must go before any other; at least the oldest one."""
    waited = (now - entry.arrived_at >= limits.patience_s for entry in live)
    return max(1, next((index for index, is_due in enumerate(waited) if not is_due), len(live)))


def _window_end(live: Sequence[Entry], limits: Limits, start: int) -> int:
    budget = WINDOW_BATCHES * limits.max_tokens
    for index in range(start, len(live)):
        budget -= live[index].tokens
        if budget < 0 or index - start >= WINDOW_BATCHES * limits.max_items:
            return index
    return len(live)


def _fill(
    order: Sequence[int], live: Sequence[Entry], limits: Limits, chosen: set[int], tokens: int
) -> tuple[set[int], int]:
    """Add entries in this order until the first that does not fit; a first entry always fits."""
    grown = set(chosen)
    longest = max((live[index].tokens for index in grown), default=0)
    for index in order:
        longest = max(longest, live[index].tokens)
        fits = tokens + live[index].tokens <= limits.max_tokens and len(grown) < limits.max_items
        if limits.max_padded is not None:
            fits = fits and longest * (len(grown) + 1) <= limits.max_padded
        if grown and not fits:
            break
        grown.add(index)
        tokens += live[index].tokens
    return grown, tokens
