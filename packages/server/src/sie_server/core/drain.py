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

    def wait_s(self, excess_items: int, draw: float) -> float:
        """How long until so many items are gone; the shortest wait while nothing is known.

        `draw`, uniform in [0, 1), makes long waits up to a quarter longer, so that those who were sent away together do
        not come back together.
        """
        known = excess_items * self.seconds / self.items if self.items else MIN_WAIT_S
        wait = min(max(known, MIN_WAIT_S), MAX_WAIT_S)
        return wait + int(draw * (wait // 4 + 1))
