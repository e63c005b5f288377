"""msgpack and JSON: which one a message is in, which one its reader wants, and how big it may be."""

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from sie_protocol.errors import ErrorCode, Problem, about_item
from sie_protocol.headers import JSON, MSGPACK, X_MSGPACK

MAX_BODY_BYTES: Final = 34 * 1024 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024  # of a head, and of what stands around a body: trailers, a chunk's extension
PAUSE_S: Final = 30.0  # who sends or takes nothing for longer does not go on: it has died, or means no good
_CUT: Final = "Input data was truncated"
_OTHER_KIND: Final = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$([^`]*)`)?")
_ITEM: Final = re.compile(r"`\$\.items\[(\d+)\]")
_FIELDS: Final = (re.compile(r"`\$\.(\w+)"), re.compile(r"required field `(\w+)`"))
_KINDS: Final = MappingProxyType(
    {
        "int": "a whole number",
        "float": "a number",
        "str": "a string",
        "bool": "true or false",
        "null": "null",
        "None": "null",  # how the decoder of msgpack calls it
        "array": "a list",
        "object": "an object",
        "bytes": "bytes",
    }
)

T = TypeVar("T")
ArrayHook = Callable[[Any], Any]


def is_msgpack(content_type: str | None) -> bool:
    """True when a body with this Content-Type is msgpack; anything else, also nothing, is JSON."""
    lowered = (content_type or "").lower()
    return MSGPACK in lowered or X_MSGPACK in lowered


def wants_msgpack(accept: str | None) -> bool:
    """True unless the reader asks for JSON and not for msgpack: clients of SIE read msgpack by default."""
    return is_msgpack(accept) or JSON not in (accept or "").lower()


def decode_body(body: bytes, content_type: str | None, kind: type[T]) -> T:
    """Decode and check a request body.

    Raises:
        Problem: INPUT_TOO_LONG beyond `MAX_BODY_BYTES`, else INVALID_INPUT with the path of what is wrong.
    """
    if len(body) > MAX_BODY_BYTES:
        raise body_too_long(len(body))
    if not body:
        raise Problem(ErrorCode.INVALID_INPUT, "the body is empty; send a JSON object, or a msgpack map")
    decode = msgspec.msgpack.decode if is_msgpack(content_type) else msgspec.json.decode
    try:
        return decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        form = "msgpack" if is_msgpack(content_type) else "JSON"
        refused = Problem(ErrorCode.INVALID_INPUT, f"the body is not a valid {form} request: {plainly(error)}")
        place = _ITEM.search(str(error))
        raise (refused if place is None else about_item(refused, int(place[1]))) from error


def field_of(problem: Problem) -> str | None:
    """The field at the top of a body that a refusal of `decode_body` is about, if it is about one."""
    found = (field.search(str(problem.__cause__)) for field in _FIELDS)
    return next((each[1] for each in found if each), None)


def plainly(error: Exception) -> str:
    """What a decoder found, in words of whoever wrote the value; what is not known to be misread stays as it is."""
    text = str(error)
    if text == _CUT:
        return "it ends in the middle; was it cut short?"
    found = _OTHER_KIND.fullmatch(text)
    if found is None:
        return text
    expected, got, path = found.groups()
    kinds = " or ".join(_KINDS.get(kind, kind) for kind in expected.split(" | "))
    path = (path or "").removeprefix(".")
    inner = path.removesuffix("[...]")
    what = f"'{path}'" if inner == path else f"something in '{inner}'"
    return f"{what if path else 'it'} is {_KINDS.get(got, got)}; expected {kinds}"


def encode_body(value: object, accept: str | None, arrays: ArrayHook | None = None) -> tuple[str, bytes]:
    """Encode a response body for its reader; returns its media type and bytes.

    `arrays` turns values that neither format knows into ones it does; see `sie_protocol.arrays`.
    """
    if wants_msgpack(accept):
        return MSGPACK, msgspec.msgpack.encode(value, enc_hook=arrays)
    return JSON, msgspec.json.encode(value, enc_hook=arrays)


def body_too_long(size_bytes: int, limit_bytes: int = MAX_BODY_BYTES) -> Problem:
    """The refusal of a body of (at least) this size."""
    return Problem(
        ErrorCode.INPUT_TOO_LONG,
        f"the body has {size_bytes} bytes, the limit is {limit_bytes}; send fewer items per request, or a shorter one",
    )


def body_compressed(encoding: str) -> Problem:
    """The refusal of a body in an encoding of transfer that nobody undoes."""
    message = f"the body is compressed (Content-Encoding: {encoding[:40]}), which is not read; send it as it is"
    return Problem(ErrorCode.INVALID_INPUT, message)


def body_stopped(size_bytes: int, pause_s: float) -> Problem:
    """The refusal of a body of which no more came for so long after so many bytes."""
    text = f"the body stopped for {pause_s:g} s after {size_bytes} bytes; send it without a break"
    return Problem(ErrorCode.INVALID_INPUT, text)
