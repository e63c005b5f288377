"""What all inference routes share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sie_protocol import headers
from sie_protocol.codec import PAUSE_S, decode_body
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import Usage
from sie_protocol.target import parse_target
from sie_server.api.body import Bodies, ClientGoneError, read_body, when_gone
from sie_server.api.edge import REQUEST_ID_KEY, error_response, header, unexpected
from sie_server.api.metrics import Metrics, RequestRecord
from sie_server.core.values import MAX_VALUES, check_values
from sie_server.engine.engine import Engine
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.results import Cost

# Encoding this many bytes takes about a millisecond, which is as long as the event loop may be held.
OFF_LOOP_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024  # of an answer; a client that takes less in `PAUSE_S` does not read
CLIENT_GONE = 499  # only in metrics: there is nobody to hear it

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What one request came to, for its metrics; written by the request's own task."""

    model: str | None = None
    status: int = 500
    error: ErrorCode | None = None
    phases: dict[str, float] = field(default_factory=dict)

    def spent(self, cost: Cost) -> None:
        """Note what the engine took."""
        self.phases.update(queue=cost.queue_s, tokenize=cost.tokenization_s, inference=cost.inference_s)
        if cost.postprocessing_s:
            self.phases["postprocess"] = cost.postprocessing_s


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What every task endpoint needs."""

    engine: Engine
    pipeline: Pipeline
    metrics: Metrics
    machine_profile: str
    max_body_bytes: int
    bodies: Bodies
    answers: Bodies


class TaskEndpoint:
    """One inference route as plain ASGI: `answer` does the work, this does what all tasks share."""

    def __init__(
        self, name: str, context: TaskContext, answer: "Answer", refuse: Callable[[Problem], Response] = error_response
    ) -> None:
        self._name = name
        self._context = context
        self._answer = answer
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a client that leaves cancels it."""
        started, outcome = perf_counter(), Outcome()
        work = asyncio.current_task()
        assert work is not None  # noqa: S101 - ASGI servers run every request in a task
        gone = False
        received, answered = self._context.bodies.open(), self._context.answers.open()
        watcher: asyncio.Task[None] | None = None

        def drop() -> None:
            nonlocal gone
            gone = True
            work.cancel()

        try:
            check_machine_profile(header(scope, b"x-sie-machine-profile"), self._context.machine_profile)
            body = await read_body(scope, receive, self._context.max_body_bytes, received)
            watcher = asyncio.get_running_loop().create_task(when_gone(receive, drop))
            media, payload, extra = await self._answer(self._context, scope, body, outcome)
            outcome.phases["total"] = perf_counter() - started
            answered.grow(len(payload))
            watcher.cancel()
            outcome.status = HTTPStatus.OK
            await send_answer(
                send, media, payload, (*extra, (headers.TOTAL_TIME, milliseconds(outcome.phases["total"])))
            )
        except Problem as problem:
            outcome.status, outcome.error = problem.status, problem.code
            _log_refusal(scope, problem)
            await self._refuse(problem)(scope, receive, send)
        except ClientGoneError:
            outcome.status = CLIENT_GONE
        except asyncio.CancelledError:
            if not gone:
                raise
            outcome.status = CLIENT_GONE
        except Exception:
            if outcome.status == HTTPStatus.OK:  # it is on its way, and can only be broken off
                raise
            log.exception("request %s to %s failed", scope[REQUEST_ID_KEY], scope["path"])
            await self._refuse(unexpected())(scope, receive, send)
        finally:
            if watcher is not None:
                watcher.cancel()
            received.release()
            answered.release()
            outcome.phases["total"] = perf_counter() - started
            record = RequestRecord(outcome.model, self._name, outcome.status, outcome.phases, outcome.error)
            self._context.metrics.on_request(record)


Reply = tuple[str, bytes, tuple[tuple[str, str], ...]]
Answer = Callable[[TaskContext, Scope, bytes, Outcome], Awaitable[Reply]]


async def decoded(context: TaskContext, body: bytes, content_type: str | None, kind: type[T]) -> T:
    """The request in a body, which is not decoded at all when it holds too many values.

    Raises:
        Problem: INPUT_TOO_LONG, or as `decode_body`.
    """

    def decode() -> T:
        check_values(body, content_type)
        return decode_body(body, content_type, kind)

    return decode() if len(body) <= MAX_VALUES else await context.pipeline.run(decode)


def timing_headers(cost: Cost) -> tuple[tuple[str, str], ...]:
    """The measured phases of a request; the last one only where there was something to do."""
    after = ((headers.POSTPROCESSING_TIME, milliseconds(cost.postprocessing_s)),) if cost.postprocessing_s else ()
    return (
        (headers.QUEUE_TIME, milliseconds(cost.queue_s)),
        (headers.TOKENIZATION_TIME, milliseconds(cost.tokenization_s)),
        (headers.INFERENCE_TIME, milliseconds(cost.inference_s)),
        *after,
    )


def usage(cost: Cost) -> Usage:
    """What a request cost, as it travels."""
    return {"input_tokens": cost.input_tokens, "truncated_items": cost.truncated_items}


def milliseconds(seconds: float) -> str:
    """Seconds as the timing headers spell them."""
    return f"{seconds * 1000:.2f}"


def check_machine_profile(asked: str | None, own: str) -> None:
    """Refuse a request that wants another machine than this one.

    Raises:
        Problem: INVALID_INPUT.
    """
    wanted = parse_target(asked).profile
    if wanted is None or wanted.lower() == own.strip().lower():
        return
    raise Problem(
        ErrorCode.INVALID_INPUT,
        f"the request asks for machine profile '{wanted[:100]}', this worker is '{own or 'without a profile'}'; "
        "ask a router, or leave the header out",
        details={"requested_profile": wanted[:100], "worker_identity": own},
    )


async def send_answer(
    send: Send, media: str, payload: bytes, extra: tuple[tuple[str, str], ...], pause_s: float = PAUSE_S
) -> None:
    """Send an answer as fast as its client reads it.

    Raises:
        ClientGoneError: the client has taken nothing for so long; the connection will be closed.
    """
    fields = [(b"content-type", media.encode()), (b"content-length", str(len(payload)).encode())]
    fields += [(name.lower().encode(), value.encode()) for name, value in extra]
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(pause_s) as limit:
            for number, message in enumerate(_messages(fields, payload)):
                if number > 1:  # the start and the first piece leave together; then a piece was taken
                    limit.reschedule(clock() + pause_s)
                await send(message)  # the server waits here until the client has taken what was before
    except TimeoutError as error:
        raise ClientGoneError from error


def _messages(fields: Sequence[tuple[bytes, bytes]], payload: bytes) -> Iterator[Message]:
    yield {"type": "http.response.start", "status": 200, "headers": fields}
    for start in range(0, max(1, len(payload)), PIECE_BYTES):
        end = start + PIECE_BYTES
        yield {"type": "http.response.body", "body": payload[start:end], "more_body": end < len(payload)}


def _log_refusal(scope: Scope, problem: Problem) -> None:
    if problem.code is ErrorCode.INFERENCE_ERROR:
        log.error("request %s: %s", scope[REQUEST_ID_KEY], problem.message)
    else:
        log.debug("request %s refused: %s: %s", scope[REQUEST_ID_KEY], problem.code, problem.message)
