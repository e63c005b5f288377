"""Requests and their items as a queue holds them, and the refusals they may end with."""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sie_protocol.errors import ErrorCode, Problem, about_item
from sie_server.adapters.base import Output, Prepared

log = logging.getLogger(__name__)

Row = Mapping[str, Output]


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one request in its order, seconds until the device began with it, and from then to the end."""

    rows: Sequence[Row]
    queue_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class Job:
    """One request in the queue, or a part of one; written by the event loop's thread only.

    `first` is the place of its first item among those that its caller sent.
    """

    reply: asyncio.Future[Answer]
    rows: list[Row]
    missing: int
    arrived_at: float
    first: int = 0
    started_at: float = math.inf
    ended_at: float = 0.0

    def computed(self, started_at: float, ended_at: float) -> None:
        """A batch with items of it is done; give the answer if that was the last one. Batches may run side by side."""
        self.started_at, self.ended_at = min(self.started_at, started_at), max(self.ended_at, ended_at)
        if self.missing == 0 and not self.reply.done():
            waited_s, took_s = self.started_at - self.arrived_at, self.ended_at - self.started_at
            self.reply.set_result(Answer(self.rows, waited_s, took_s))

    def fail(self, problem: Problem) -> None:
        """End it, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(problem)


@dataclass(slots=True, eq=False)
class QueuedItem:
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


def jobs_of(entries: Sequence[QueuedItem]) -> list[Job]:
    """The requests of some items, each once."""
    return list({id(entry.job): entry.job for entry in entries}.values())


def inference_error(model: str, cause: BaseException) -> Problem:
    """A batch that failed for another reason than memory."""
    log.error("model %s failed on a batch", model, exc_info=cause)
    problem = Problem(ErrorCode.INFERENCE_ERROR, f"model '{model}' failed on this batch; the worker's log says why")
    problem.__cause__ = cause
    return problem


def not_finite(model: str, item: int) -> Problem:
    """An item whose outputs are no numbers."""
    message = f"model '{model}' gave numbers for item {item} that are not finite; leave it out"
    return about_item(Problem(ErrorCode.INFERENCE_ERROR, message), item)


def out_of_memory(model: str) -> Problem:
    """Items that the device has no memory for, even alone and with everything else gone."""
    return Problem(
        ErrorCode.RESOURCE_EXHAUSTED,
        f"the device ran out of memory for model '{model}' on this request; try again, or send less in one request",
    )


def too_late(model: str, timeout_s: float) -> Problem:
    """A request that waited too long."""
    return Problem(
        ErrorCode.DEADLINE_EXCEEDED, f"the request waited {timeout_s:.0f} s for model '{model}' and was given up"
    )


def shutting_down(model: str) -> Problem:
    """A request that a closing worker does not start."""
    return Problem(ErrorCode.SHUTTING_DOWN, f"this worker is shutting down and takes no more work for '{model}'")


def making_room(model: str) -> Problem:
    """A request for a model that is being unloaded; the next try loads it again."""
    return Problem(
        ErrorCode.MODEL_LOADING,
        f"model '{model}' is being unloaded to make room; try again, and it is loaded anew",
        retry_after_s=1,
        details={"model": model},
    )
