"""The queue of one loaded model: admits, batches, hands to the device, answers. Event-driven; never polls."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import Adapter, Prepared, RunsInSteps
from sie_server.core.batching import Limits, take
from sie_server.core.drain import DrainRate
from sie_server.engine.device import Device, Work
from sie_server.engine.jobs import (
    Answer,
    Job,
    QueuedItem,
    Row,
    inference_error,
    jobs_of,
    making_room,
    not_finite,
    shutting_down,
    too_late,
)
from sie_server.engine.recovery import Attempt, Recovery, RescuePorts
from sie_server.engine.signal import Signal
from sie_server.engine.turns import BatchResult, StartedBatch

__all__ = ["Answer", "BatchRecord", "Clock", "ModelLoop", "Ports", "QueueLimits", "Row"]

# Images of one model that are decoded and not yet computed. One takes up to 12 MB; an accelerator batches a few.
# A CPU computes one a lane, for seconds: more than the next one would only wait, and be given up.
MAX_DECODED = 32
NEXT_ON_CPU = 1
# Of models that write: a token takes all weights of a decoder out of memory, for one image or for as many as this.
WRITTEN_ON_CPU = 4
NO_BATCH = Limits(max_tokens=0, max_items=0)  # separates what is late from what may wait, and takes nothing

Clock = Callable[[], float]  # monotonic seconds, from any thread


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of what one model accepts: items not yet answered, tokens not yet started, seconds of waiting."""

    max_items: int
    max_tokens: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What one batch was."""

    model: str
    items: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ports:
    """What a queue needs of the outside: time, chance, somebody to tell of changes and of each batch, and help."""

    clock: Clock
    changed: Callable[[], None]
    record: Callable[[BatchRecord], None]
    rescue: RescuePorts
    draw: Callable[[], float]


class ModelLoop:
    """Owns the queue of one model. Everything runs on the event loop's thread but `Adapter.run`."""

    def __init__(
        self, name: str, adapter: Adapter, device: Device, batch: Limits, queue: QueueLimits, ports: Ports
    ) -> None:
        self.name = name
        self.adapter = adapter
        self._device = device
        self._batch = batch
        self._queue_limits = queue
        self._clock = ports.clock
        self._changed = ports.changed
        self._record = ports.record
        self._draw = ports.draw
        self._recovery = Recovery(name, ports.rescue, self._resume)
        self._again: deque[Attempt] = deque()
        self._paused: deque[StartedBatch] = deque()  # those that wait for their next turn
        self._queue: tuple[QueuedItem, ...] = ()
        self._arrived: list[QueuedItem] = []
        self._tokens = 0
        self._items = 0
        self._running = 0  # batches on the device, or between two turns or attempts
        self._rate = DrainRate()
        self._moved_at = 0.0
        self._settled = Signal()
        self._asked = False
        self._refusal: Callable[[str], Problem] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.max_decoded = _max_decoded(device, adapter)
        self.decoding = asyncio.Semaphore(self.max_decoded)

    @property
    def depth(self) -> int:
        """Items accepted and not answered yet, those still being tokenised included."""
        return self._items

    @property
    def waiting(self) -> int:
        """Items that are tokenised and wait for the device."""
        return len(self._queue) + len(self._arrived)

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    @property
    def timeout_s(self) -> float:
        """How long a request may wait."""
        return self._queue_limits.timeout_s

    @contextmanager
    def admit(self, items: int) -> Iterator[None]:
        """Hold room for the items of one request until its answer is known.

        Raises:
            Problem: INPUT_TOO_LONG when they could never fit, QUEUE_FULL when they do not fit now.
        """
        limit = self._queue_limits.max_items
        if items > limit:
            raise Problem(
                ErrorCode.INPUT_TOO_LONG, f"the request has {items} items, the limit is {limit}; split it into smaller"
            )
        if self._items + items > limit:
            raise self._full(f"{self._items} items to answer and takes at most {limit}", self._items + items - limit)
        if not self._items:
            self._moved_at = self._clock()
        self._items += items
        self._changed()
        try:
            yield
        finally:
            self._items -= items
            self._changed()
            self._settled.notify()

    async def submit(self, prepared: Sequence[Prepared], first: int = 0) -> Answer:
        """Queue items of one request, from this place on, and wait for them; cancelling drops what has not started.

        Raises:
            Problem: QUEUE_FULL, DEADLINE_EXCEEDED, INFERENCE_ERROR, RESOURCE_EXHAUSTED, MODEL_LOADING or SHUTTING_DOWN.
        """
        loop = asyncio.get_running_loop()
        self._check_room(sum(item.weight for item in prepared))
        now = self._clock()
        job = Job(loop.create_future(), [{}] * len(prepared), len(prepared), now, first)
        deadline = now + self._queue_limits.timeout_s
        self._arrived.extend(
            QueuedItem(job, index, item, item.weight, now, deadline) for index, item in enumerate(prepared)
        )
        self._tokens += sum(item.weight for item in prepared)
        if self._timer is None:
            self._timer = loop.call_later(self._queue_limits.timeout_s, self._expire)
        self._ask()
        return await job.reply

    async def drain(self, grace_s: float) -> None:
        """Return when nothing uses the adapter any more: what was accepted is finished.

        What has not started after `grace_s` is refused, with word to try again. Nobody may be admitted meanwhile.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self._until_unused()
        except TimeoutError:
            self.close(making_room)
            await self._until_unused()
        self.close(making_room)

    def close(self, refusal: Callable[[str], Problem] = shutting_down) -> None:
        """Refuse what waits and whatever comes; what already runs is still answered."""
        self._refusal = refusal
        again = [entry for attempt in self._again for entry in attempt.entries]
        for entry in (*again, *self._queue, *self._arrived):
            entry.job.fail(refusal(self.name))
        self._queue, self._arrived, self._tokens = (), [], 0
        self._again.clear()
        while self._paused:
            self._give_up(self._paused.popleft(), refusal(self.name))
        self._settled.notify()
        if self._timer is not None:
            self._timer.cancel()

    async def stop(self) -> None:
        """Close, and end what tries to rescue a batch."""
        self.close()
        await self._recovery.close(shutting_down(self.name))

    async def _until_unused(self) -> None:
        while self._items or self._running or self._again:
            await self._settled.changed(self._settled.version)

    def _check_room(self, tokens: int) -> None:
        if self._refusal is not None:
            raise self._refusal(self.name)
        limit = self._queue_limits.max_tokens
        # A request of more than half of what fits comes in while at most half is taken: others would always be first.
        is_large = tokens > limit / 2 and self._tokens <= limit / 2
        if self._tokens + tokens > limit and not is_large:
            excess = (self._tokens + tokens - limit) / self._tokens
            raise self._full(f"{self._tokens} tokens waiting and takes at most {limit}", int(excess * self.waiting))

    def _full(self, what: str, excess_items: int) -> Problem:
        message = f"model '{self.name}' has {what}; try again"
        return Problem(ErrorCode.QUEUE_FULL, message, retry_after_s=self._rate.wait_s(excess_items, self._draw()))

    def _ask(self) -> None:
        if not self._asked and (self._paused or self._again or self._queue or self._arrived):
            self._asked = True
            self._device.ask(self.name, self._dispatch)

    def _dispatch(self) -> Work[BatchResult | None] | None:
        """Form the next batch, now that the device has room for one."""
        self._asked = False
        batch = self._next_paused()
        if batch is None:
            attempt = self._next()
            if not attempt.entries:
                self._settled.notify()
                return None
            batch = StartedBatch(attempt)
            self._running += 1
        self._ask()
        return self._work(batch)

    def _next_paused(self) -> StartedBatch | None:
        """A batch that is to go on. One that nobody waits for any more is dropped."""
        while self._paused:
            batch = self._paused.popleft()
            if not all(entry.cancelled for entry in batch.attempt.entries):
                return batch
            batch.drop()
            self._recovery.settled(batch.attempt)
            self._resume(())
        return None

    def _give_up(self, batch: StartedBatch, problem: Problem) -> None:
        batch.drop()
        for job in jobs_of(batch.attempt.entries):
            job.fail(problem)
        self._recovery.settled(batch.attempt)
        self._running -= 1
        self._settled.notify()

    def _next(self) -> Attempt:
        """What failed before goes first: it has waited longest."""
        while self._again:
            attempt = self._again.popleft()
            live = tuple(entry for entry in attempt.entries if not entry.cancelled)
            if live:
                return Attempt(live, attempt.history, attempt.rescue)
            self._recovery.settled(attempt)
        return Attempt(self._take())

    def _take(self) -> tuple[QueuedItem, ...]:
        """Choose the next batch, fail what waited too long, and wake up when the next of the rest has."""
        taken = take((*self._queue, *self._arrived), self._batch, self._clock())
        self._wait_on(taken.rest, taken.expired, taken.wake_at)
        return taken.batch

    def _expire(self) -> None:
        """Fail what waited too long, even while the device is stuck in one batch."""
        nothing = take((*self._queue, *self._arrived), NO_BATCH, self._clock())
        self._wait_on(nothing.rest, nothing.expired, nothing.wake_at)

    def _wait_on(self, rest: tuple[QueuedItem, ...], expired: tuple[QueuedItem, ...], wake_at: float | None) -> None:
        self._queue, self._arrived = rest, []
        self._tokens = sum(entry.tokens for entry in rest)
        for entry in expired:
            entry.job.fail(too_late(self.name, self._queue_limits.timeout_s))
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if wake_at is None else loop.call_later(wake_at - self._clock(), self._expire)

    def _work(self, batch: StartedBatch) -> Work[BatchResult | None]:
        attempt = batch.attempt

        def compute(threads: int) -> BatchResult | None:
            return batch.turn(self.adapter, threads, self._clock)

        def done(computed: BatchResult | None) -> None:
            if computed is None:
                self._pause(batch)
                return
            try:
                self._answer(attempt.entries, computed)
            except Exception as error:  # noqa: BLE001 - a bug of ours must not leave requests without an answer
                problem = inference_error(self.name, error)
                for job in jobs_of(attempt.entries):
                    job.fail(problem)
            self._recovery.settled(attempt)
            self._resume(())

        return Work(compute, done, lambda error: self._recovery.failed(attempt, error))

    def _pause(self, batch: StartedBatch) -> None:
        """It has had its turn: it waits for the next as other models do for theirs."""
        if self._refusal is not None:
            self._give_up(batch, self._refusal(self.name))
            return
        self._paused.append(batch)
        self._ask()

    def _resume(self, attempts: Sequence[Attempt]) -> None:
        """One batch is over; these are to be computed in its place."""
        self._running -= 1
        if self._refusal is None:
            self._again.extend(attempts)
            self._ask()
        else:
            for entry in (entry for attempt in attempts for entry in attempt.entries):
                entry.job.fail(self._refusal(self.name))
        self._settled.notify()

    def _answer(self, entries: tuple[QueuedItem, ...], computed: BatchResult) -> None:
        now = self._clock()
        tokens = sum(entry.prepared.tokens for entry in entries)
        self._record(BatchRecord(self.name, len(entries), tokens, computed.spent))
        self._rate, self._moved_at = self._rate.after(len(entries), now - self._moved_at), now
        for row, entry in enumerate(entries):
            job = entry.job
            if row in computed.broken:
                job.fail(not_finite(self.name, job.first + entry.index))
            found = ((kind, values[row]) for kind, values in computed.outputs.items())
            job.rows[entry.index] = {kind: own for kind, own in found if own is not None}
            job.missing -= 1
        for job in jobs_of(entries):
            job.computed(computed.started, computed.ended)


def _max_decoded(device: Device, adapter: Adapter) -> int:
    if device.kind != "cpu":
        return MAX_DECODED
    return device.lanes * (WRITTEN_ON_CPU if isinstance(adapter, RunsInSteps) else 1) + NEXT_ON_CPU
