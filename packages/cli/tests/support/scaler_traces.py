"""Runs the scaler over a made-up day: metrics as a function of time in, the list of changes out."""

from collections.abc import Callable
from dataclasses import dataclass

from sie_cli.scaler import Reading, Rules, State, explain, step, triggers

Metrics = tuple[float | None, float | None, float | None]  # demand, queue, activity; None: the query failed
World = Callable[[float, int], Metrics]  # seconds, replicas → metrics
OUTAGE: Metrics = (None, None, None)
QUIET: Metrics = (0.0, 0.0, 0.0)


def readings(metrics: Metrics, *, threshold: float = 10, activation: float = 2) -> tuple[Reading, ...]:
    """The readings of the three triggers, in the scaler's order."""
    return tuple(Reading(t, v) for t, v in zip(triggers(threshold, activation), metrics, strict=True))


@dataclass(frozen=True, slots=True)
class Line:
    """One change of a trace."""

    at: float
    replicas: int
    why: str


def trace(rules: Rules, world: World, until: float, *, start: int = 0) -> list[Line]:
    """Step from one due time to the next; a newly wanted worker exists at once."""
    state, lines, now = State(start, last_active=0.0 if start else None), [], 0.0
    while now <= until:
        state, changes = step(rules, state, readings(world(now, state.replicas)), now)
        lines += [Line(now, change.after, explain(change)) for change in changes]
        now = state.due
    return lines


def sizes(lines: list[Line]) -> list[tuple[float, int]]:
    """Times and sizes only."""
    return [(line.at, line.replicas) for line in lines]
