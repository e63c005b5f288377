"""Rounds on a host that others may use too: the rate of the same small piece of work is taken around each part of one.

A round in which that rate changed by more than `TOLERANCE` says more about the host than about what it measured. It is
discarded and another one measured, up to `TRIES` for each that is wanted; then the most even of all have to do, and the
verdict says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

TOLERANCE: Final = 0.1
TRIES: Final = 3

T = TypeVar("T")
Mark = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Round(Generic[T]):
    """What one round found, and the host's rate around each of its parts."""

    found: T
    host: tuple[float, ...]

    @property
    def spread(self) -> float:
        """By how much the host's best rate in this round was above its worst."""
        return max(self.host) / min(self.host) - 1


@dataclass(frozen=True, slots=True)
class Rounds(Generic[T]):
    """The rounds that count, the most even one first, and how many others there were."""

    kept: tuple[Round[T], ...]
    discarded: int

    @property
    def even(self) -> bool:
        """Whether every round that counts can be believed."""
        return all(each.spread <= TOLERANCE for each in self.kept)

    def verdict(self) -> str:
        """One line that belongs beside every figure of these rounds."""
        uneven = sum(each.spread > TOLERANCE for each in self.kept)
        head = "host even" if self.even else f"HOST UNEVEN in {uneven} of these rounds, believe none of it"
        worst = max(each.spread for each in self.kept)
        return (
            f"{head}: {len(self.kept)} rounds, {self.discarded} discarded; "
            f"within a round the host's rate changed by up to {worst:.0%} (allowed: {TOLERANCE:.0%})"
        )


def even_rounds(wanted: int, rate: Callable[[], float], measure: Callable[[Mark], T]) -> Rounds[T]:
    """So many rounds of `measure`. It calls its argument around each of its parts, which takes the host's `rate`."""
    tried: list[Round[T]] = []
    while sum(each.spread <= TOLERANCE for each in tried) < wanted and len(tried) < wanted * TRIES:
        host: list[float] = []

        def mark(host: list[float] = host) -> float:
            host.append(rate())
            return host[-1]

        found = measure(mark)
        tried.append(Round(found, tuple(host)))
        print(f"round {len(tried)}: the host's rate changed by {tried[-1].spread:.0%}; {found}", flush=True)
    kept = sorted(tried, key=lambda each: each.spread)[:wanted]
    return Rounds(tuple(kept), len(tried) - len(kept))
