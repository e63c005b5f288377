"""After how long should a client ask again that found nobody? Pure: of the fleet, the time and a draw."""

from sie_router.core.demand import Wish, at_once, jittered, waited_s
from sie_router.core.fleet import Fleet
from sie_router.core.startups import expected_s


def delay_s(fleet: Fleet, wish: Wish, now: float, most_s: int, draw: float) -> int:
    """Whole seconds, at least 1. `most_s`: while nobody knows better; `draw` is uniform in [0, 1).

    Who asks alone is told exactly that. Only those that ask together must not come back together.
    """
    left_s = expected_s(fleet.startups, wish[0], waited_s(fleet, wish, now))
    known_s = most_s if left_s is None else min(left_s, most_s)
    return known_s if at_once(fleet, wish) == 1 else jittered(known_s, draw)
