"""After how long should a client ask again that found nobody? Pure: of the fleet, the time and a draw."""

from dataclasses import dataclass, replace
from typing import Final

from sie_router.core.demand import DemandKey, at_once, jittered, waited_s
from sie_router.core.fleet import Fleet
from sie_router.core.route import Ask, serving_workers
from sie_router.core.startups import expected_s

GAP_S: Final = (2, 5)  # for a worker that is here already: from, to; drawn, because all of its clients ask at once


@dataclass(frozen=True, slots=True)
class RetryHint:
    """What somebody is told who found nobody: when to ask again.

    A worker is likely to be there in `left_s`, None where nobody knows; one was first asked for `waited_s` ago.
    """

    delay_s: int
    left_s: int | None
    waited_s: float


def retry_hint(fleet: Fleet, ask: Ask, key: DemandKey, now: float, most_s: int, draw: float) -> RetryHint:
    """What to tell. The delay is in whole seconds, at least 1, and `most_s` while nobody knows better.

    `draw` is uniform in [0, 1). Who asks alone is told exactly that; only those that ask together must not come back
    together.
    """
    waited = waited_s(fleet, key, now)
    left_s = expected_s(fleet.startups, key[0], waited)
    known_s = most_s if left_s is None else min(left_s, most_s)
    return RetryHint(_delay_s(fleet, ask, key, known_s, draw), left_s, waited)


def _delay_s(fleet: Fleet, ask: Ask, key: DemandKey, known_s: int, draw: float) -> int:
    if known_s > GAP_S[0] and is_coming(fleet, ask):
        return min(known_s, GAP_S[0] + int(draw * (GAP_S[1] - GAP_S[0] + 1)))
    return known_s if at_once(fleet, key) == 1 else jittered(known_s, draw)


def is_coming(fleet: Fleet, ask: Ask) -> bool:
    """True when such a request could be served if the workers that are likely to be ready in seconds were now."""
    soon = fleet.index.soon
    return bool(soon) and serving_workers(replace(fleet, index=replace(fleet.index, scopes=soon)), ask) > 0
