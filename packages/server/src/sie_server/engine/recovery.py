"""Carries out what `core.recovery` says about a failed batch. Lives on the event loop's thread."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sie_protocol.errors import Problem
from sie_server.core.recovery import History, Step, next_step
from sie_server.engine.jobs import QueuedItem, inference_error, jobs_of, out_of_memory

log = logging.getLogger(__name__)


class OomEvent(StrEnum):
    """What is counted; each is the middle of a metric's name."""

    ATTEMPTED = "recoveries_attempted"
    SUCCEEDED = "recoveries_succeeded"
    TERMINAL = "terminal_failures"
    CLEARED = "cache_clears"
    EVICTED = "evictions_triggered"
    SPLIT = "batch_splits"


@dataclass(frozen=True, slots=True)
class RescuePorts:
    """What a recovery needs of the outside.

    `clear` frees what is only cached; `make_room` unloads another model than the named one, if it can.
    """

    is_out_of_memory: Callable[[BaseException], bool]
    clear: Callable[[], Awaitable[None]]
    make_room: Callable[[str], Awaitable[bool]]
    count: Callable[[str, OomEvent], None]


@dataclass(slots=True, eq=False)
class Rescue:
    """One batch that ran out of memory and the pieces it fell into; written by `Recovery`."""

    pieces: int = 1
    is_lost: bool = False


NEW = History()


@dataclass(frozen=True, slots=True)
class Attempt:
    """A batch, what it has behind it, and the rescue it is part of."""

    entries: tuple[QueuedItem, ...]
    history: History = NEW
    rescue: Rescue | None = None


class Recovery:
    """Decides the fate of failed batches of one model; `resume` gets what is to be tried instead, perhaps nothing."""

    def __init__(self, model: str, ports: RescuePorts, resume: Callable[[Sequence[Attempt]], None]) -> None:
        self._model = model
        self._ports = ports
        self._resume = resume
        self._tasks: dict[asyncio.Task[None], Attempt] = {}

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Find out what comes next; the error may hold memory and is not kept."""
        is_out_of_memory = self._ports.is_out_of_memory(error)
        jobs = jobs_of(attempt.entries)
        step = next_step(
            attempt.history, items=len(attempt.entries), requests=len(jobs), is_out_of_memory=is_out_of_memory
        )
        if is_out_of_memory and attempt.rescue is None:
            log.warning("model %s ran out of memory on a batch of %d items", self._model, len(attempt.entries))
            self._ports.count(self._model, OomEvent.ATTEMPTED)
            attempt = replace(attempt, rescue=Rescue())
        match step:
            case Step.CLEAR_CACHES:
                self._begin(attempt, self._clear(attempt))
            case Step.EVICT:
                self._begin(attempt, self._evict(attempt))
            case Step.SPLIT:
                self._ports.count(self._model, OomEvent.SPLIT)
                half = len(attempt.entries) // 2
                history = replace(attempt.history, splits=attempt.history.splits + 1)
                self._go_on(attempt, history, (attempt.entries[:half], attempt.entries[half:]))
            case Step.ISOLATE:
                parts = [tuple(entry for entry in attempt.entries if entry.job is job) for job in jobs]
                self._go_on(attempt, replace(attempt.history, apart=True), parts)
            case Step.GIVE_UP:
                problem = out_of_memory(self._model) if is_out_of_memory else inference_error(self._model, error)
                for job in jobs:
                    job.fail(problem)
                self._lose(attempt)

    def settled(self, attempt: Attempt) -> None:
        """An attempt was computed, or nobody waits for it any more."""
        rescue = attempt.rescue
        if rescue is not None:
            rescue.pieces -= 1
            if not rescue.pieces and not rescue.is_lost:
                self._ports.count(self._model, OomEvent.SUCCEEDED)

    async def close(self, problem: Problem) -> None:
        """Give up whatever is between two attempts."""
        pending = dict(self._tasks)
        for task, attempt in pending.items():
            task.cancel()
            for job in jobs_of(attempt.entries):
                job.fail(problem)
        await asyncio.gather(*pending, return_exceptions=True)

    async def _rescue(self, attempt: Attempt, work: Coroutine[Any, Any, None]) -> None:
        """A rescue that fails itself ends the batch: whoever waits for it hears so."""
        try:
            await work
        except Exception:
            log.exception("the rescue of a batch of model %s failed", self._model)
            self._give_up(attempt)

    async def _clear(self, attempt: Attempt) -> None:
        self._ports.count(self._model, OomEvent.CLEARED)
        await self._ports.clear()
        self._go_on(attempt, replace(attempt.history, cleared=True), (attempt.entries,))

    async def _evict(self, attempt: Attempt) -> None:
        if await self._ports.make_room(self._model):
            self._ports.count(self._model, OomEvent.EVICTED)
            self._go_on(attempt, replace(attempt.history, evicted=True), (attempt.entries,))
            return
        self._give_up(attempt)

    def _give_up(self, attempt: Attempt) -> None:
        for job in jobs_of(attempt.entries):
            job.fail(out_of_memory(self._model))
        self._lose(attempt)

    def _go_on(self, attempt: Attempt, history: History, parts: Sequence[tuple[QueuedItem, ...]]) -> None:
        if attempt.rescue is not None:
            attempt.rescue.pieces += len(parts) - 1
        self._resume([Attempt(entries, history, attempt.rescue) for entries in parts])

    def _lose(self, attempt: Attempt) -> None:
        if attempt.rescue is not None:
            self._ports.count(self._model, OomEvent.TERMINAL)
            attempt.rescue.is_lost = True
            self.settled(attempt)
        self._resume(())

    def _begin(self, attempt: Attempt, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(
            self._rescue(attempt, work), name=f"rescue a batch of {self._model}"
        )
        self._tasks[task] = attempt
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
