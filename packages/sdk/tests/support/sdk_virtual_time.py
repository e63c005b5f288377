"""Virtual time: for both drivers, whose waits then take none; and for a flow against a script, through no driver."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sdk_server import Reply
from sie_sdk.drivers import AsyncClock, Clock, SyncClock
from sie_sdk.errors import SIEError
from sie_sdk.messages import Answer, Effect, Loss, Lost, Outcome, Park, Plan, Request, Resume, Send, Sleep, WaitEvent

T = TypeVar("T")


class VirtualTime:
    """A clock that only waits move on. `waited`: how long each of them was to be."""

    def __init__(self, draw: float = 0.0) -> None:
        self._now = 1000.0
        self._draw = draw
        self.waited: list[float] = []

    def of_threads(self) -> SyncClock:
        return Clock(self._wait, self._time, self._chance)

    def of_tasks(self) -> AsyncClock:
        async def wait(closed: asyncio.Event, delay_s: float) -> bool:
            return self._wait(closed, delay_s)

        return Clock(wait, self._time, self._chance)

    def _wait(self, closed: threading.Event | asyncio.Event, delay_s: float) -> bool:
        self.waited.append(delay_s)
        self._now += delay_s
        return closed.is_set()

    def _time(self) -> float:
        return self._now

    def _chance(self) -> float:
        return self._draw


def answer(reply: Reply) -> Answer:
    """The scripted server's reply as the SDK's own value."""
    return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)


@dataclass(frozen=True)
class Scripted:
    """One outcome and how long it takes; what takes longer than the attempt may is a timeout."""

    outcome: Outcome
    takes_s: float = 0.0


@dataclass
class Run(Generic[T]):
    """What became of a call."""

    result: T | None = None
    error: SIEError | None = None
    effects: list[Effect] = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def waits(self) -> list[WaitEvent]:
        return [effect.event for effect in self.effects if isinstance(effect, Sleep | Park)]

    @property
    def sends(self) -> list[Send]:
        found = (effect.send if isinstance(effect, Park) else effect for effect in self.effects)
        return [effect for effect in found if isinstance(effect, Send)]


Script = Iterator[Scripted] | Callable[[Request, float], Scripted]


def run(plan: Plan[T], script: Script, *, start: float = 1000.0, draw: float = 0.0) -> Run[T]:
    """Drive the plan until it ends; the script says what comes of each request, by turns or by request and time."""
    done: Run[T] = Run()
    flow, now = plan(start), start
    try:
        effect = next(flow)
        while True:
            done.effects.append(effect)
            if isinstance(effect, Sleep):
                now += effect.event.delay_s
                effect = flow.send(Resume(now, draw))
                continue
            sent = effect.send if isinstance(effect, Park) else effect
            assert isinstance(sent, Send), "calls of one request neither pause nor part"
            step = script(sent.request, now) if callable(script) else next(script)
            now += min(step.takes_s, sent.timeout_s)
            late = step.takes_s > sent.timeout_s
            effect = flow.send(Resume(now, draw, Lost(Loss.TIMED_OUT, "late") if late else step.outcome))
    except StopIteration as stop:
        done.result = stop.value
    except SIEError as error:
        done.error = error
    done.elapsed_s = now - start
    return done
