"""numpy arrays on the wire. The only module of this package that needs numpy.

In msgpack an array is a map with *binary* keys (the msgpack-numpy layout that published clients read):
`{b"nd": true, b"type": "<f4", b"kind": b"", b"shape": [n, ...], b"data": raw C-order bytes}`. Only plain numbers
travel: no objects, no structures and never a pickle. In JSON an array is nested lists.
"""

import math
from typing import Any, Final

import msgspec
import numpy as np

from sie_protocol.codec import ArrayHook, wants_msgpack
from sie_protocol.errors import ErrorCode, Problem

MAX_DIMENSIONS: Final = 8
MAX_NESTING: Final = 64
JSON_AT_ONCE: Final = 1 << 14  # numbers; writing them takes a few milliseconds
JSON_NUMBER_BYTES: Final = 20  # about, of a float32 with its comma: it is written as the float64 that it equals
DTYPES: Final = frozenset(
    {f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")}
    | {"|b1", "|i1", "|u1"}
)

Array = np.ndarray[Any, np.dtype[Any]]


def to_wire(array: Array) -> dict[bytes, Any]:
    """The msgpack form of a numeric array; its bytes are not copied when it is C-contiguous.

    Raises:
        TypeError: the dtype is not one of `DTYPES`.
    """
    if array.dtype.str not in DTYPES:
        raise TypeError(f"dtype '{array.dtype.str}' cannot travel; allowed: {', '.join(sorted(DTYPES))}")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": list(array.shape), b"data": data}


def from_wire(value: dict[Any, Any]) -> Array:
    """A read-only view on the bytes of one array map.

    Raises:
        ValueError: dtype, shape or byte length are not those of a plain numeric array.
    """
    kind, shape, data = value.get(b"type"), value.get(b"shape"), value.get(b"data")
    if not isinstance(kind, str) or kind not in DTYPES or value.get(b"kind", b"") != b"":
        raise ValueError(f"an array of type {kind!r} is not plain numbers")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not isinstance(data, (bytes, memoryview)):
        raise ValueError(f"an array needs a shape of at most {MAX_DIMENSIONS} whole numbers, and its bytes")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"{shape!r} is not the shape of an array")
    dtype = np.dtype(kind)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array {kind}{shape} does not have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def unpack(value: Any, depth: int = 0) -> Any:
    """Replace every array map inside a decoded msgpack value by its array.

    Raises:
        ValueError: an array map is malformed, or the value is nested deeper than `MAX_NESTING`.
    """
    if depth > MAX_NESTING:
        raise ValueError(f"the message is nested deeper than {MAX_NESTING} levels")
    if isinstance(value, list):
        return [unpack(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get(b"nd") is True:
        return from_wire(value)
    return {key: unpack(each, depth + 1) for key, each in value.items()}


def pack(value: Any) -> Any:
    """Encoder hook for msgpack: arrays and numpy scalars become what msgpack knows."""
    if isinstance(value, np.ndarray):
        return to_wire(value)
    return _scalar(value)


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= JSON_AT_ONCE else _in_blocks(value)
    return _scalar(value)


def _in_blocks(array: Array) -> msgspec.Raw:
    """Nested lists, written a few rows at a time: in between, other threads may run."""
    rows = max(1, JSON_AT_ONCE * len(array) // array.size)
    parts = []
    for at in range(0, len(array), rows):
        parts += [b",", msgspec.json.encode(array[at : at + rows].tolist())[1:-1]]
    return msgspec.Raw(b"".join([b"[", *parts[1:], b"]"]))


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} cannot travel")


def hook_for(accept: str | None) -> ArrayHook:
    """The hook that `codec.encode_body` needs for a reader with this Accept header."""
    return pack if wants_msgpack(accept) else _listed


def decode_reply(body: bytes) -> Any:
    """Decode a msgpack answer, arrays included.

    Raises:
        Problem: INTERNAL_ERROR when the body is not msgpack or holds a malformed array.
    """
    try:
        return unpack(msgspec.msgpack.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Problem(ErrorCode.INTERNAL_ERROR, f"the server's answer is not valid msgpack: {error}") from error
