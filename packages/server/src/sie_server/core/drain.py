"""How fast a queue empties, and so when to come back to a full one. Times are monotonic seconds."""

from dataclasses import dataclass
from typing import Final

WEIGHT: Final = 0.2  # of the newest batch: about the last ten count
MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class DrainRate:
    """Moving averages over batches: items of a batch, and seconds from one batch's end to the next one's."""

    items: float = 0.0
    seconds: float = 0.0

    def after(self, items: int, seconds: float) -> "DrainRate":
        """The rate after one more batch, so long after the one before it or after the queue was empty."""
        if not self.items:
            return DrainRate(items, seconds)
        return DrainRate(self.items + WEIGHT * (items - self.items), self.seconds + WEIGHT * (seconds - self.seconds))

    def wait_s(self, excess_items: int) -> float:
        """How long until so many items are gone; the shortest wait while nothing is known."""
        if not self.items:
            return MIN_WAIT_S
        return min(max(excess_items * self.seconds / self.items, MIN_WAIT_S), MAX_WAIT_S)
