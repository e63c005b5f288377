"""Whether a worker may be trusted with requests: a circuit breaker as a value, and who stays in rotation.

The phases: CLOSED, everything passes; OPEN, nothing does, for a time that grows with each relapse; HALF_OPEN, the next
request is a probe; PROBING, the probe is under way and nothing else passes. Outlier detection as in Envoy, except that
a probe decides about the return instead of time alone.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, Protocol, TypeVar

import msgspec

IN_A_ROW: Final = 5  # failures without a success between them
WINDOW_S: Final = 30.0
LEAST_OUTCOMES: Final = 20  # fewer say nothing about a rate
FIRST_OPEN_S: Final = 5.0
LONGEST_OPEN_S: Final = 120.0
SLOW_START_S: Final = 10.0
LEAST_WEIGHT: Final = 0.1
_SERVER_ERROR: Final = 500
_NEUTRAL: Final = frozenset({429, 503})


class Phase(Enum):
    """Where a breaker stands."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()
    PROBING = auto()


class Verdict(Enum):
    """What the outcome of one request says about the worker that served it."""

    GOOD = auto()
    BAD = auto()
    NEUTRAL = auto()


class Health(msgspec.Struct, frozen=True):
    """A breaker.

    `in_a_row` counts failures since the last success, `bad` of `total` are the outcomes of the window that began at
    `since`, `opened` how often it opened without a quiet window since, `until` when it may be probed; times are
    monotonic seconds.
    """

    phase: Phase = Phase.CLOSED
    in_a_row: int = 0
    bad: int = 0
    total: int = 0
    since: float = 0.0
    opened: int = 0
    until: float = 0.0

    @property
    def is_ejected(self) -> bool:
        """True when the worker should get nothing, or nothing more than the probe it has."""
        return self.phase in {Phase.OPEN, Phase.PROBING}


HEALTHY: Final = Health()  # and nothing to remember


def verdict(status: int, *, is_about_model: bool = False) -> Verdict:
    """What an answer says. `is_about_model`: the worker works, the model does not."""
    if status < _SERVER_ERROR and status not in _NEUTRAL:
        return Verdict.GOOD
    return Verdict.NEUTRAL if status in _NEUTRAL or is_about_model else Verdict.BAD


def judged(health: Health, said: Verdict, now: float, draw: float) -> Health:
    """The breaker after one outcome; `HEALTHY` itself where nothing needs remembering. `draw` is uniform in [0, 1).

    Outcomes of requests that were sent before it opened come too late to matter.
    """
    match health.phase:
        case Phase.CLOSED:
            return _counted(health, said, now, draw)
        case Phase.PROBING if said is Verdict.GOOD:
            return Health(since=now, opened=health.opened)
        case Phase.PROBING if said is Verdict.BAD:
            return _opened(health, now, draw)
        case Phase.PROBING:
            return msgspec.structs.replace(health, phase=Phase.HALF_OPEN)
        case _:
            return health


def awaited(health: Health, now: float) -> Health:
    """The breaker once its time is up."""
    is_due = health.phase is Phase.OPEN and now >= health.until
    return msgspec.structs.replace(health, phase=Phase.HALF_OPEN) if is_due else health


def probed(health: Health) -> Health:
    """The breaker when a request was sent; in HALF_OPEN that one is the probe."""
    return msgspec.structs.replace(health, phase=Phase.PROBING) if health.phase is Phase.HALF_OPEN else health


def weight(serving_s: float) -> float:
    """The share of a worker that began to serve so long ago, in (0, 1]: caches are cold, memory is being allocated."""
    return min(1.0, max(LEAST_WEIGHT, serving_s / SLOW_START_S))


class Judged(Protocol):
    """Whatever has a breaker."""

    @property
    def health(self) -> Health:
        """Its breaker."""
        ...


Some = TypeVar("Some", bound=Judged)


def in_rotation(group: Sequence[Some]) -> Sequence[Some]:
    """The group without its ejected members, of whom at most half go: when everyone fails, the fault is elsewhere.

    Those that would come back first stay; the order is kept.
    """
    ejected = [place for place, each in enumerate(group) if each.health.is_ejected]
    if not ejected:
        return group
    ejected.sort(key=lambda place: group[place].health.until, reverse=True)
    gone = set(ejected[: len(group) // 2])
    return [each for place, each in enumerate(group) if place not in gone]


def _counted(health: Health, said: Verdict, now: float, draw: float) -> Health:
    if said is Verdict.NEUTRAL:
        return health
    is_bad = said is Verdict.BAD
    if now - health.since > WINDOW_S:
        if not is_bad:
            return HEALTHY
        health = Health(in_a_row=health.in_a_row, since=now)
    elif health is HEALTHY and not is_bad:
        return health
    counted = Health(
        in_a_row=health.in_a_row + 1 if is_bad else 0,
        bad=health.bad + is_bad,
        total=health.total + 1,
        since=health.since,
        opened=health.opened,
    )
    too_often = counted.total >= LEAST_OUTCOMES and 2 * counted.bad >= counted.total
    return _opened(counted, now, draw) if is_bad and (counted.in_a_row >= IN_A_ROW or too_often) else counted


def _opened(health: Health, now: float, draw: float) -> Health:
    longest = min(LONGEST_OPEN_S, FIRST_OPEN_S * 2.0 ** min(health.opened, 10))
    return Health(phase=Phase.OPEN, opened=health.opened + 1, until=now + longest * (0.5 + draw / 2))
