"""How many values a body holds, before it is decoded: a byte of a message may become a hundred bytes of memory. Pure.

A decoder builds all of them in one go, in which nothing else of the process runs.
"""

from typing import Final

import numpy as np

from sie_protocol.codec import is_msgpack
from sie_protocol.errors import ErrorCode, Problem

# Twice the tokens that a model's queue takes by default. So many objects are about 100 MB, made in about 0.1 s.
MAX_VALUES: Final = 1 << 19
AT_ONCE_BYTES: Final = 1 << 16  # of a JSON body: what is made of such a piece fits a core's cache

_QUOTE, _COMMA, _LIST, _OBJECT = b'",[{'
_BYTE: Final = 0xFF


def check_values(body: bytes, content_type: str | None) -> None:
    """Refuse a body with more values than `MAX_VALUES`; a broken one passes, for the decoder says what is wrong.

    Raises:
        Problem: INPUT_TOO_LONG.
    """
    if len(body) <= MAX_VALUES:  # a value has a byte at least
        return
    if is_msgpack(content_type):
        is_fine = _msgpack_values(body) <= MAX_VALUES
    else:
        is_fine = _json_marks(body) <= MAX_VALUES or _json_values(body) <= MAX_VALUES
    if not is_fine:
        message = f"the body has more than {MAX_VALUES} texts, numbers, lists and objects; send fewer in one request"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)


def check_count(count: int, limit: int) -> None:
    """Refuse a request without items, or with more than a model could ever hold, before anything is done for each.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    if not count:
        raise Problem(ErrorCode.INVALID_INPUT, "items is empty; send at least one item")
    if count > limit:
        message = f"the request has {count} items, the limit is {limit}; split it into smaller ones"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)


def _json_marks(body: bytes) -> int:
    """Commas and openings anywhere: no fewer than outside of texts, and ten times as fast to count."""
    pieces = ((at, at + AT_ONCE_BYTES) for at in range(0, len(body), AT_ONCE_BYTES))
    return sum(body.count(mark, *piece) for piece in pieces for mark in (b",", b"[", b"{"))


def _json_values(body: bytes, at_once: int = AT_ONCE_BYTES) -> int:
    """Commas and openings of lists and objects, outside of texts; stops soon after there are too many."""
    found, start, is_inside = 0, 0, 0
    while start < len(body) and found <= MAX_VALUES:
        piece = body[start : start + at_once]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape goes on in the next piece
            piece = body[start : start + at_once + 1]
        start += len(piece)
        codes = np.frombuffer(piece.replace(rb"\\", b"..").replace(rb"\"", b".."), np.uint8)
        inside = (np.cumsum(codes == _QUOTE, dtype=np.uint8) + np.uint8(is_inside)) & 1  # after this many quotes
        marks = (codes == _COMMA) | (codes == _LIST) | (codes == _OBJECT)
        found += int(np.count_nonzero(marks & (inside == 0)))
        is_inside = int(inside[-1])
    return found


def _msgpack_values(body: bytes) -> int:
    """Values up to the end, or up to the first list or map that announces too many."""
    at, seen, announced = 0, 0, 1
    while announced and at < len(body) and seen + announced <= MAX_VALUES:
        head = body[at]
        size, children = _SIZES[head], _CHILDREN[head]
        if width := _WIDTHS[head]:
            length = int.from_bytes(body[at + 1 : at + 1 + width], "big")
            size, children = (size + width, children * length) if children else (size + width + length, 0)
        at += size
        seen += 1
        announced += children - 1
    return seen + announced


def _widths() -> dict[int, int]:
    """How many bytes say the length, after these heads."""
    heads = {1: (0xC4, 0xC7, 0xD9), 2: (0xC5, 0xC8, 0xDA, 0xDC, 0xDE), 4: (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)}
    return {head: width for width, some in heads.items() for head in some}


def _sizes() -> dict[int, int]:
    """Bytes of what these heads begin, where they are more than one, without lengths and what those count."""
    numbers = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    extensions = {0xC7: 2, 0xC8: 2, 0xC9: 2, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
    texts = {0xA0 + length: 1 + length for length in range(32)}
    return numbers | extensions | texts


def _children() -> dict[int, int]:
    """Values inside these lists and maps, or how many for each one of their length."""
    small = {0x80 + length: 2 * length for length in range(16)} | {0x90 + length: length for length in range(16)}
    return small | {0xDC: 1, 0xDD: 1, 0xDE: 2, 0xDF: 2}


# By the first byte of a value, as the specification of msgpack has them.
_SIZES: Final = tuple(_sizes().get(head, 1) for head in range(_BYTE + 1))
_CHILDREN: Final = tuple(_children().get(head, 0) for head in range(_BYTE + 1))
_WIDTHS: Final = tuple(_widths().get(head, 0) for head in range(_BYTE + 1))
