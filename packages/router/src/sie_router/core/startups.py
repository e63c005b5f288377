"""How long a group's first worker takes to come, as this router saw it: what clients that come back are told.

Pure: a fold of met wishes. Told in place of the configured constants once something was seen, and never longer.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Final

from sie_router.core.fleet import Fleet, Group

KEPT: Final = 5  # of a group, the latest: images and caches change
MAX_S: Final = 3600.0
OVERDUE: Final = 0.25  # of the time that was waited in vain: whoever is late is likely to be later


def with_startups(fleet: Fleet, now: float) -> Fleet:
    """The fleet, having learnt from the wishes that it meets by now. Called before these are dropped."""
    met = [
        (group, now - demand.began)
        for (group, pool), demand in fleet.demand.items()
        if demand.until > now and fleet.has_healthy(group, pool)
    ]
    if not met:
        return fleet
    seen: dict[Group, tuple[float, ...]] = dict(fleet.startups)
    for group, took_s in met:
        seen[group] = (*seen.get(group, ()), min(took_s, MAX_S))[-KEPT:]
    return replace(fleet, startups=seen)


def expected_s(startups: Mapping[Group, tuple[float, ...]], group: Group, waited_s: float) -> int | None:
    """In how many seconds a worker is likely to come, at least 1, after somebody has waited; None: nobody knows."""
    seen = startups.get(group)
    if not seen:
        return None
    return max(1, math.ceil(max(median(seen) - waited_s, waited_s * OVERDUE)))
