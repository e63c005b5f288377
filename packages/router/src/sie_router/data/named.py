"""Requests of other services' clients, which name their model in the body: found and, where it must be, replaced.

Nothing else of the body becomes a Python object. What would take longer than a millisecond is done in steps, and other
requests go on between them.
"""

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Final, TypeVar

import msgspec

from sie_protocol.codec import decode_body, field_of
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import JSON
from sie_protocol.target import ModelRef, parse_model
from sie_router.data.body import Body
from sie_router.data.scan import Span, TooManyMarks, member

AT_ONCE_BYTES: Final = 1 << 20
_MAX_VALUE_BYTES: Final = 4096  # no name is as long, in any spelling

T = TypeVar("T")


class _Named(msgspec.Struct):
    model: str


def model_named(body: bytes) -> ModelRef:
    """The model that a JSON body asks for.

    Raises:
        Problem: INVALID_INPUT, with the field's name as `param` if the field is what is wrong.
    """
    try:
        named = decode_body(body, JSON, _Named).model
    except Problem as problem:
        if field_of(problem) == "model":
            problem.details = {**problem.details, "param": "model"}
        raise
    with about_model():
        return parse_model(named)


async def model_found(body: Body) -> ModelRef:
    """The same for a body of any length; of a long one, only as much is checked as finding the model takes.

    Raises:
        Problem: as above; INPUT_TOO_LONG when a long body consists of too many values.
    """
    if len(body.data) <= AT_ONCE_BYTES:
        return model_named(body.data)
    span = await _span(body.data)
    if span is None:
        return model_named(b"{}")
    start, end = span
    return model_named(b'{"model":%b}' % body.data[start : min(end, start + _MAX_VALUE_BYTES)])


@contextmanager
def about_model() -> Iterator[None]:
    """Say that a refusal is about the field `model`."""
    try:
        yield
    except Problem as problem:
        problem.details = {**problem.details, "param": "model"}
        raise


def rename(body: Body, asked: ModelRef, model_id: str) -> None:
    """Let the body name the model by the id that workers know; most do already."""
    if asked.bundle is None and asked.name == model_id:
        return
    fields = msgspec.json.decode(body.data, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model_id))
    body.replace(msgspec.json.encode(fields))


async def renamed(body: Body, asked: ModelRef, model_id: str) -> None:
    """The same for a body of any length, whose model was found."""
    if len(body.data) <= AT_ONCE_BYTES or (asked.bundle is None and asked.name == model_id):
        rename(body, asked, model_id)
        return
    start, end = await _span(body.data) or (0, 0)
    data, after = memoryview(body.data), BytesIO()
    for part in (data[:start], msgspec.json.encode(model_id), data[end:]):
        for at in range(0, len(part), AT_ONCE_BYTES):
            after.write(part[at : at + AT_ONCE_BYTES])
            await asyncio.sleep(0)
    body.replace(after.getvalue())


async def _span(data: bytes) -> Span | None:
    try:
        return await _by_steps(member(data, "model"))
    except ValueError as error:
        raise Problem(ErrorCode.INVALID_INPUT, f"the body is not a valid JSON request: {error}") from error
    except TooManyMarks as error:
        message = "the body has too many values for a router to find the model; send fewer items per request"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message) from error


async def _by_steps(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        await asyncio.sleep(0)
