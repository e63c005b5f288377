"""When may requests that wait for a worker go on? Knows no futures, no clock and no HTTP.

A worker that has just begun to serve gets the waiting requests on a ramp: a few, then twice as many each `DOUBLES_S`.
All of them at once would fill its queue, and those who did not fit would be refused after having waited.
"""

import math
from typing import Final

START: Final = 4  # requests at once for each worker
DOUBLES_S: Final = 0.25
_MOST_DOUBLINGS: Final = 40.0  # beyond any number of requests that could wait


def releasable(elapsed_s: float, workers: int) -> int:
    """How many requests may have gone on so long after the first one could."""
    return int(START * workers * 2 ** min(elapsed_s / DOUBLES_S, _MOST_DOUBLINGS))


def release_at_s(count: int, workers: int) -> float:
    """When after the first the request may go on before which `count` others went; the inverse of `releasable`."""
    return max(0.0, DOUBLES_S * math.log2((count + 1) / (START * workers)))
