"""What the routes in other services' shapes share: JSON in and out, and errors where their clients look for them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec
from starlette.responses import Response

from sie_protocol.arrays import hook_for
from sie_protocol.codec import field_of
from sie_protocol.compat import compat_body
from sie_protocol.errors import ErrorCode, Problem, envelope
from sie_protocol.headers import JSON
from sie_server.api import tasks
from sie_server.api.tasks import OFF_LOOP_BYTES, TaskContext

T = TypeVar("T")
_SERVER_ERRORS: Final = 500


def compat_error(problem: Problem) -> Response:
    """A refusal as `{"error": {message, type, param, code}}`, with the same status and headers as on every route."""
    shape = envelope(problem)
    return Response(json.dumps(compat_body(problem)), shape.status, dict(shape.headers), JSON)


@contextmanager
def about(param: str) -> Iterator[None]:
    """Name the field that a refusal of the request is about; what is wrong with the worker is about no field."""
    try:
        yield
    except Problem as problem:
        if problem.status < _SERVER_ERRORS and "param" not in problem.details:
            problem.details = {**problem.details, "param": param}
        raise


def wrong(param: str, message: str) -> Problem:
    """A refusal of one field."""
    return Problem(ErrorCode.INVALID_INPUT, f"{param} {message}", details={"param": param})


async def decoded(context: TaskContext, body: bytes, kind: type[T]) -> T:
    """The request.

    Raises:
        Problem: as `tasks.decoded`, with the field that is wrong.
    """
    try:
        return await tasks.decoded(context, body, JSON, kind)
    except Problem as problem:
        problem.details = {**problem.details, "param": field_of(problem)}
        raise


async def written(context: TaskContext, size: int, build: Callable[[], Any]) -> bytes:
    """The answer as JSON, arrays included; `size` is about how many bytes it has."""
    return await off_loop_if(context, size, lambda: msgspec.json.encode(build(), enc_hook=hook_for(JSON)))


async def off_loop_if(context: TaskContext, size: int, work: Callable[[], T]) -> T:
    """Run what handles so many bytes, in the CPU pool if it would hold the event loop too long."""
    return work() if size < OFF_LOOP_BYTES else await context.pipeline.run(work)
