"""When may requests that wait for a worker go on? Knows no futures, no clock and no HTTP.

A worker that has just begun to serve gets the waiting requests on a ramp: a few, then twice as many each `DOUBLES_S`.
All of them at once would fill its queue, and those who did not fit would be refused after having waited.
"""

import math
from typing import Final

from sie_router.core.fleet import Fleet
from sie_router.core.route import Ask, Reject, make_plan

START: Final = 4  # requests at once for each worker
DOUBLES_S: Final = 0.25
_MOST_DOUBLINGS: Final = 40.0  # beyond any number of requests that could wait


def able(fleet: Fleet, ask: Ask) -> int:
    """How many workers could take such a request; 0: it is to wait.

    With `loaded_only` these are the holders of the model. At least 1 when waiting is of no use any more: the request
    would be refused, or the model failed to load.
    """
    plan = make_plan(fleet, ask)
    if isinstance(plan, Reject):
        return 1
    for ready in plan.candidates():
        urls = ready.loaded.get(plan.model.key, ()) if ask.loaded_only else ready.urls
        if urls:
            return len(urls)
        if ask.loaded_only and any(plan.model.key in fleet.workers[url].failed for url in ready.urls):
            return 1
    return 0


def allowed(elapsed_s: float, workers: int) -> int:
    """How many requests may have gone on so long after the first one could."""
    return int(START * workers * 2 ** min(elapsed_s / DOUBLES_S, _MOST_DOUBLINGS))


def due_s(count: int, workers: int) -> float:
    """When after the first the request may go on before which `count` others went; the inverse of `allowed`."""
    return max(0.0, DOUBLES_S * math.log2((count + 1) / (START * workers)))
