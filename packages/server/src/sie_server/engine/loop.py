"""The queue of one loaded model: admits, batches, hands to the device, answers. Event-driven; never polls."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import Adapter, Output, Outputs, Prepared
from sie_server.core.batching import Limits, take
from sie_server.engine.device import Device, Work

log = logging.getLogger(__name__)

NO_BATCH = Limits(max_tokens=0, max_items=0)  # separates what is late from what may wait, and takes nothing

Clock = Callable[[], float]  # monotonic seconds, from any thread
Row = Mapping[str, Output]
Computed = tuple[Outputs, float, float]  # what a batch gave, when it started and when it ended


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
class Answer:
    """The rows of one request in its order, how long it waited for the device, and how long that took, in seconds."""

    rows: Sequence[Row]
    queue_s: float
    inference_s: float


@dataclass(frozen=True, slots=True)
class Ports:
    """What a queue needs of the outside: the time, and somebody to tell of changes and of each batch."""

    clock: Clock
    changed: Callable[[], None]
    record: Callable[[BatchRecord], None]


@dataclass(slots=True, eq=False)
class Job:
    """One request in the queue; written by the event loop's thread only."""

    reply: asyncio.Future[Answer]
    rows: list[Row]
    missing: int
    arrived_at: float
    started_at: float | None = None
    inference_s: float = 0.0


@dataclass(slots=True, eq=False)
class Waiting:
    """One item in the queue; never changed."""

    job: Job
    index: int
    prepared: Prepared
    tokens: int
    arrived_at: float
    deadline: float | None

    @property
    def cancelled(self) -> bool:
        """True when the request has its answer, an error, or nobody who waits."""
        return self.job.reply.done()


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
        self._queue: tuple[Waiting, ...] = ()
        self._arrived: list[Waiting] = []
        self._tokens = 0
        self._items = 0
        self._asked = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        """Items accepted and not answered yet, those still being tokenised included."""
        return self._items

    @property
    def waiting(self) -> int:
        """Items that are tokenised and wait for the device."""
        return len(self._queue) + len(self._arrived)

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
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"model '{self.name}' has {self._items} items to answer and takes at most {limit}; try again",
            )
        self._items += items
        self._changed()
        try:
            yield
        finally:
            self._items -= items
            self._changed()

    async def submit(self, prepared: Sequence[Prepared]) -> Answer:
        """Queue the items of one request and wait for all of them; cancelling drops those that have not started.

        Raises:
            Problem: QUEUE_FULL, DEADLINE_EXCEEDED, INFERENCE_ERROR or SHUTTING_DOWN.
        """
        loop = asyncio.get_running_loop()
        self._check_room(sum(item.tokens for item in prepared))
        now = self._clock()
        job = Job(loop.create_future(), [{}] * len(prepared), len(prepared), now)
        deadline = now + self._queue_limits.timeout_s
        self._arrived.extend(
            Waiting(job, index, item, item.tokens, now, deadline) for index, item in enumerate(prepared)
        )
        self._tokens += sum(item.tokens for item in prepared)
        if self._timer is None:
            self._timer = loop.call_later(self._queue_limits.timeout_s, self._expire)
        self._ask()
        return await job.reply

    def close(self) -> None:
        """Refuse what waits and whatever comes; what already runs is still answered."""
        self._closed = True
        for entry in (*self._queue, *self._arrived):
            _fail(entry.job, _shutting_down(self.name))
        self._queue, self._arrived, self._tokens = (), [], 0
        if self._timer is not None:
            self._timer.cancel()

    def _check_room(self, tokens: int) -> None:
        if self._closed:
            raise _shutting_down(self.name)
        limit = self._queue_limits.max_tokens
        if self._tokens and self._tokens + tokens > limit:
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"model '{self.name}' has {self._tokens} tokens waiting and takes at most {limit}; try again",
            )

    def _ask(self) -> None:
        if not self._asked and (self._queue or self._arrived):
            self._asked = True
            self._device.ask(self._dispatch)

    def _dispatch(self) -> Work[Computed] | None:
        """Form the next batch, now that the device has room for one."""
        self._asked = False
        batch = self._take()
        if not batch:
            return None
        self._ask()
        now = self._clock()
        for entry in batch:
            if entry.job.started_at is None:
                entry.job.started_at = now
        return self._work(batch, now)

    def _take(self) -> tuple[Waiting, ...]:
        """Choose the next batch, fail what waited too long, and wake up when the next of the rest has."""
        taken = take((*self._queue, *self._arrived), self._batch, self._clock())
        self._wait_on(taken.rest, taken.expired, taken.wake_at)
        return taken.batch

    def _expire(self) -> None:
        """Fail what waited too long, even while the device is stuck in one batch."""
        nothing = take((*self._queue, *self._arrived), NO_BATCH, self._clock())
        self._wait_on(nothing.rest, nothing.expired, nothing.wake_at)

    def _wait_on(self, rest: tuple[Waiting, ...], expired: tuple[Waiting, ...], wake_at: float | None) -> None:
        self._queue, self._arrived = rest, []
        self._tokens = sum(entry.tokens for entry in rest)
        for entry in expired:
            _fail(entry.job, _too_late(self.name, self._queue_limits.timeout_s))
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if wake_at is None else loop.call_later(wake_at - self._clock(), self._expire)

    def _work(self, batch: tuple[Waiting, ...], now: float) -> Work[Computed]:
        prepared = [entry.prepared for entry in batch]

        def compute(threads: int) -> Computed:
            started = self._clock()
            outputs = self.adapter.run(prepared, threads)
            return outputs, started, self._clock()

        def done(computed: Computed) -> None:
            outputs, started, ended = computed
            self._answer(batch, outputs, started - now, ended - started)

        def failed(error: BaseException) -> None:
            for entry in batch:
                _fail(entry.job, _inference_error(self.name, error))

        return Work(compute, done, failed)

    def _answer(self, batch: tuple[Waiting, ...], outputs: Outputs, staged_s: float, seconds: float) -> None:
        self._record(BatchRecord(self.name, len(batch), sum(entry.tokens for entry in batch), seconds))
        for row, entry in enumerate(batch):
            job = entry.job
            job.rows[entry.index] = {kind: own for kind, values in outputs.items() if (own := values[row]) is not None}
            job.missing -= 1
        for job in {id(entry.job): entry.job for entry in batch}.values():
            job.inference_s += seconds
            if job.missing == 0 and not job.reply.done() and job.started_at is not None:
                job.reply.set_result(Answer(job.rows, job.started_at - job.arrived_at + staged_s, job.inference_s))


def _fail(job: Job, problem: Problem) -> None:
    if not job.reply.done():
        job.reply.set_exception(problem)


def _inference_error(model: str, cause: BaseException) -> Problem:
    log.error("model %s failed on a batch", model, exc_info=cause)
    problem = Problem(ErrorCode.INFERENCE_ERROR, f"model '{model}' failed on this batch; the worker's log says why")
    problem.__cause__ = cause
    return problem


def _too_late(model: str, timeout_s: float) -> Problem:
    return Problem(
        ErrorCode.DEADLINE_EXCEEDED, f"the request waited {timeout_s:.0f} s for model '{model}' and was given up"
    )


def _shutting_down(model: str) -> Problem:
    return Problem(ErrorCode.SHUTTING_DOWN, f"this worker is shutting down and takes no more work for '{model}'")
