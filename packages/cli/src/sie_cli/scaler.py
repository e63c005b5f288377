"""How many workers a pool should have: the arithmetic of KEDA and of the Kubernetes autoscaler, as functions of values.

KEDA decides between zero and some, at each polling interval; the horizontal pod autoscaler (HPA) decides between one
and many, at its own interval. The same numbers therefore lead to the same replicas here as in a Kubernetes cluster.
Knows nothing of processes, HTTP or clocks: metrics, state and time come in, the next state and the changes go out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

TOLERANCE = 0.1  # the HPA leaves a pool alone while the metric is within 10 % of what its replicas are meant for
UP_PERIOD_S = 15.0  # growth is limited per 15 s to the larger of +100 % and +4
UP_FACTOR = 2.0
UP_STEP = 4
DOWN_PERIOD_S = 60.0  # shrinking is limited per 60 s to the larger of -25 % and -1
DOWN_FACTOR = 0.75
DOWN_STEP = 1
NEVER_ADDS = 1e9  # threshold of a trigger that only says "in use"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One metric that can wake or grow a pool.

    `threshold`: value one worker is meant for. `activation`: the pool is in use while the value is above (not at) it.
    """

    name: str
    threshold: float
    activation: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a trigger's query gave; None when it failed."""

    trigger: Trigger
    value: float | None

    @property
    def is_active(self) -> bool:
        """Strictly above the activation value; a failed query is not active."""
        return self.value is not None and self.value > self.trigger.activation


@dataclass(frozen=True, slots=True)
class Rules:
    """One pool's autoscaling settings; the chart's but for `failure_threshold`, there 12. Durations in seconds.

    `fallback_replicas`: for a pool whose metrics cannot be read `failure_threshold` times in a row; None: no fallback.
    """

    min_replicas: int = 0
    max_replicas: int = 10
    polling_interval_s: float = 15.0
    cooldown_s: float = 900.0
    sync_period_s: float = 15.0
    stabilization_s: float = 300.0
    fallback_replicas: int | None = 2
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class State:
    """What has to be remembered of one pool between two steps; times on the caller's clock.

    `failures`: failed queries in a row, per trigger. `recommended` and `resized` are the HPA's own history: what it
    wanted and by how many it changed the pool; both are cut to the windows in which they matter.
    """

    replicas: int = 0
    last_active: float | None = None
    next_poll: float = 0.0
    next_sync: float = 0.0
    failures: tuple[int, ...] = ()
    recommended: tuple[tuple[float, int], ...] = ()
    resized: tuple[tuple[float, int], ...] = ()

    @property
    def due(self) -> float:
        """When the next step is worth taking."""
        return min(self.next_poll, self.next_sync)


class Cause(StrEnum):
    """Why a pool changed."""

    ACTIVATED = auto()
    COOLED_DOWN = auto()
    FALLBACK = auto()
    MINIMUM = auto()
    GREW = auto()
    SHRANK = auto()


@dataclass(frozen=True, slots=True)
class Change:
    """One decision. `reading` led to it, if one did; `number` is what `cause` counts (see `explain`)."""

    cause: Cause
    before: int
    after: int
    number: float = 0.0
    reading: Reading | None = None


def triggers(queue_threshold: float, queue_activation: float) -> tuple[Trigger, Trigger, Trigger]:
    """The triggers of every pool: unmet demand, queued items, and traffic, which holds a pool but never grows it."""
    return (
        Trigger("demand", 1.0),
        Trigger("queue", queue_threshold, queue_activation),
        Trigger("activity", NEVER_ADDS),
    )


def lease_triggers() -> tuple[Trigger, Trigger]:
    """What resource pools ask for: the workers they reserve, with those that others lack, and the floor they want."""
    return Trigger("reserved", 1.0), Trigger("warm", 1.0)


def query_value(elements: Sequence[float], *, ignore_null_values: bool) -> float | None:
    """The one number of a query's answer, or None when the query counts as failed.

    No element, NaN and infinity are 0 if null values are ignored, else a failure; several elements are a failure.
    """
    if len(elements) > 1:
        return None
    if elements and math.isfinite(elements[0]):
        return elements[0]
    return 0.0 if ignore_null_values else None


def step(rules: Rules, state: State, readings: Sequence[Reading], now: float) -> tuple[State, tuple[Change, ...]]:
    """Take every decision that is due at `now`.

    Args:
        rules: the pool's settings.
        state: the state the previous step returned; `State(replicas)` at first.
        readings: one for each trigger, always in the same order.
        now: seconds on a monotonic clock.
    """
    changes = []
    if now >= state.next_poll:
        state, change = _poll(rules, state, readings, now)
        state = replace(state, next_poll=now + rules.polling_interval_s)
        changes.append(change)
    if now >= state.next_sync:
        state, change = _sync(rules, state, readings, now)
        state = replace(state, next_sync=now + rules.sync_period_s)
        changes.append(change)
    return state, tuple(change for change in changes if change is not None)


def explain(change: Change) -> str:
    """One line for people: what was seen and what it led to."""
    return f"{_because(change)}: {change.before} -> {change.after}"


def _because(change: Change) -> str:
    number, reading = f"{change.number:g}", change.reading
    match change.cause:
        case Cause.ACTIVATED:
            assert reading is not None  # noqa: S101 - a bug, not an outcome: no trigger, no activation
            return f"{reading.trigger.name} {reading.value:g} > {reading.trigger.activation:g}"
        case Cause.COOLED_DOWN:
            return f"not in use for {change.number:.0f} s, longer than the cooldown"
        case Cause.FALLBACK:
            return f"metrics missing {number} times in a row, fallback"
        case Cause.MINIMUM:
            return f"below the minimum of {number}"
        case Cause.GREW:
            return f"{_wish(reading)} wants {number}"
        case Cause.SHRANK:
            return f"no more than {number} wanted over the stabilization window"


def _wish(reading: Reading | None) -> str:
    if reading is None or reading.value is None:
        return "fallback"
    return f"{reading.trigger.name} {reading.value:g} at {reading.trigger.threshold:g} per worker"


# What follows decides between zero and some, as KEDA does.


def _poll(rules: Rules, state: State, readings: Sequence[Reading], now: float) -> tuple[State, Change | None]:
    failures = state.failures or (0,) * len(readings)
    failures = tuple(n + 1 if r.value is None else 0 for n, r in zip(failures, readings, strict=True))
    state = replace(state, failures=failures)
    is_error = any(failures)
    active = next((reading for reading in readings if reading.is_active), None)
    if active is not None:
        return _poll_active(rules, state, active, now, is_error=is_error)
    if is_error and rules.fallback_replicas != 0:
        return _poll_blind(rules, state, now)
    if state.replicas > 0 and rules.min_replicas == 0:
        return _poll_idle(rules, state, now)
    if state.replicas < rules.min_replicas:
        return _resize(state, Change(Cause.MINIMUM, state.replicas, rules.min_replicas, number=rules.min_replicas))
    return state, None


def _poll_active(
    rules: Rules, state: State, active: Reading, now: float, *, is_error: bool
) -> tuple[State, Change | None]:
    if state.replicas == 0:
        wanted = max(1, rules.min_replicas)
        return _resize(replace(state, last_active=now), Change(Cause.ACTIVATED, 0, wanted, reading=active))
    # KEDA does not count a poll with failed queries as activity; the cooldown then runs from the last clean one.
    return (state if is_error else replace(state, last_active=now)), None


def _poll_blind(rules: Rules, state: State, now: float) -> tuple[State, Change | None]:
    """Nothing is known to be in use, and something is unknown: never to zero, and after a while up from zero."""
    failures = max(state.failures)
    if state.replicas > 0 or rules.fallback_replicas is None or failures < rules.failure_threshold:
        return state, None
    wanted = min(rules.fallback_replicas, rules.max_replicas)
    state = replace(state, last_active=now)  # what was started blindly still gets a cooldown
    return _resize(state, Change(Cause.FALLBACK, 0, wanted, number=failures))


def _poll_idle(rules: Rules, state: State, now: float) -> tuple[State, Change | None]:
    idle_s = math.inf if state.last_active is None else now - state.last_active
    if idle_s <= rules.cooldown_s:
        return state, None
    return _resize(state, Change(Cause.COOLED_DOWN, state.replicas, 0, number=idle_s))


# What follows decides between one and many, as the horizontal pod autoscaler does.


def _sync(rules: Rules, state: State, readings: Sequence[Reading], now: float) -> tuple[State, Change | None]:
    if state.replicas == 0:
        return state, None
    wanted, reading = _wanted(rules, state, readings)
    recommended = (*_since(state.recommended, now - rules.stabilization_s), (now, wanted))
    resized = _since(state.resized, now - max(UP_PERIOD_S, DOWN_PERIOD_S))
    state = replace(state, recommended=recommended, resized=resized)
    highest = max(count for _, count in recommended)
    if wanted > state.replicas:
        after = min(wanted, max(state.replicas, _growth_limit(state, now)), rules.max_replicas)
        change = Change(Cause.GREW, state.replicas, after, number=wanted, reading=reading)
    else:
        floor = max(_shrink_limit(state, now), rules.min_replicas, 1)
        after = min(state.replicas, max(highest, floor))
        change = Change(Cause.SHRANK, state.replicas, after, number=highest)
    if change.after < rules.min_replicas:
        change = Change(Cause.MINIMUM, state.replicas, rules.min_replicas, number=rules.min_replicas)
    if change.after == change.before:
        return state, None
    return _resize(replace(state, resized=(*resized, (now, change.after - change.before))), change)


def _wanted(rules: Rules, state: State, readings: Sequence[Reading]) -> tuple[int, Reading | None]:
    """The highest proposal and the reading behind it; a failed query proposes nothing and forbids shrinking."""
    current = state.replicas
    proposals: list[tuple[int, Reading | None]] = []
    for reading, failures in zip(readings, state.failures or (0,) * len(readings), strict=True):
        if reading.value is not None:
            proposals.append((proposal(reading.value, reading.trigger.threshold, current), reading))
        elif failures >= rules.failure_threshold and rules.fallback_replicas is not None:
            proposals.append((max(current, rules.fallback_replicas), None))
        else:
            proposals.append((current, None))
    wanted, source = max(proposals, key=lambda pair: pair[0])
    return min(max(wanted, rules.min_replicas, 1), rules.max_replicas), source


def proposal(value: float, threshold: float, replicas: int) -> int:
    """Replicas that one metric asks for when each is meant for `threshold` of the total `value`."""
    is_close = 1.0 - TOLERANCE <= value / (threshold * replicas) <= 1.0 + TOLERANCE
    return replicas if is_close else math.ceil(value / threshold)


def _growth_limit(state: State, now: float) -> int:
    start = state.replicas - _moved(state.resized, now - UP_PERIOD_S)
    return max(math.ceil(start * UP_FACTOR), start + UP_STEP)


def _shrink_limit(state: State, now: float) -> int:
    start = state.replicas - _moved(state.resized, now - DOWN_PERIOD_S)
    return min(math.floor(start * DOWN_FACTOR), start - DOWN_STEP)


def _moved(resized: Iterable[tuple[float, int]], after: float) -> int:
    return sum(delta for at, delta in resized if at > after)


def _since(history: tuple[tuple[float, int], ...], after: float) -> tuple[tuple[float, int], ...]:
    return tuple(entry for entry in history if entry[0] > after)


def _resize(state: State, change: Change) -> tuple[State, Change]:
    return replace(state, replicas=change.after), change
