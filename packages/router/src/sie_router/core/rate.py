"""How often somebody may ask: the generic cell rate algorithm (ITU-T I.371), which needs one number for each caller.

The number is the time at which the caller would have used up nothing, had it asked evenly. Every request moves it on by
one interval; it may be ahead of the clock by as many intervals as may come at once.
"""

from dataclasses import dataclass
from typing import Final

NOW_S: Final = 1e-6  # a wait shorter than this is none: clocks and sums of intervals are not exact


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` requests a second in the long run, and `burst` of them at once."""

    per_s: float
    burst: int


def wait_s(due: float, now: float, rate: Rate) -> float:
    """Seconds until one more request fits; 0 when it does now."""
    left_s = due - now - (rate.burst - 1) / rate.per_s
    return left_s if left_s > NOW_S else 0.0


def taken(due: float, now: float, rate: Rate) -> float:
    """The caller's number after one more request."""
    return max(due, now) + 1 / rate.per_s
