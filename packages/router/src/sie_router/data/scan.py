"""Finds one member of a long JSON object, in steps that others can take turns with.

A JSON library reads 30 MB in 10 to 30 ms, and nothing else happens meanwhile. This takes three times as long, a
fraction of a millisecond at a time. It only looks for the ends of values: who decodes the object finds what is wrong.
"""

import re
from collections.abc import Generator
from typing import Final

import msgspec

STEP: Final = 64 << 10  # bytes of one step
MARK_COST: Final = 64  # as many bytes are skipped in the time that a bracket or a quotation mark takes
MAX_MARKS: Final = 1_000_000  # about a second; a thousand documents with a hundred texts each have 400,000
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_TEXT: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_PLAIN: Final = re.compile(rb'[^"\[\]{}]*+')
_SCALAR: Final = re.compile(rb"[^,}\]\s]*+")
_QUOTE: Final = ord('"')
_OPEN: Final = frozenset(b"[{")
_CLOSE: Final = frozenset(b"]}")

Span = tuple[int, int]
Steps = Generator[None, None, int]


class TooManyMarks(Exception):  # noqa: N818 - a bound, not an error of ours
    """The object consists of too many small values."""


def member(data: bytes, name: str, step: int = STEP) -> Generator[None, None, Span | None]:
    """Where the value of this name is, the last one if there are several; None: nowhere.

    Yields after each `step` bytes, at least 2, or what costs as much.

    Raises:
        ValueError: this is no JSON object.
        TooManyMarks: see there.
    """
    return _Scan(data, step).member(name)


class _Scan:
    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = self._left = step
        self._marks = MAX_MARKS

    def member(self, name: str) -> Generator[None, None, Span | None]:
        found: Span | None = None
        at = yield from self._token(0, b"{")
        at = yield from self._run(_SPACE, at)
        while not self._is(at, b"}"):
            key = at
            at = yield from self._text((yield from self._token(at, b'"')))
            is_it = _names(self._data[key : min(at, key + 8 * len(name))], name)
            at = yield from self._run(_SPACE, (yield from self._token(at, b":")))
            end = yield from self._value(at)
            found = (at, end) if is_it else found
            at = yield from self._run(_SPACE, end)
            if not self._is(at, b"}"):
                at = yield from self._run(_SPACE, (yield from self._token(at, b",")))
        return found

    def _value(self, at: int) -> Steps:
        if self._is(at, b'"'):
            return (yield from self._text(at + 1))
        if self._is(at, b"[") or self._is(at, b"{"):
            return (yield from self._nested(at + 1))
        end = yield from self._run(_SCALAR, at)
        if end == at:
            raise _malformed(at)
        return end

    def _nested(self, at: int) -> Steps:
        data, depth = self._data, 1
        while depth:
            at = yield from self._run(_PLAIN, at)
            if at == len(data):
                raise _malformed(at)
            mark = data[at]
            at += 1
            if mark == _QUOTE:
                at = yield from self._text(at)
            else:
                depth += (mark in _OPEN) - (mark in _CLOSE)
        return at

    def _text(self, at: int) -> Steps:
        """The end of a text that began before `at`."""
        while not self._is(at := (yield from self._run(_TEXT, at)), b'"'):
            if at + 1 >= len(self._data):
                raise _malformed(at)
        return at + 1

    def _token(self, at: int, token: bytes) -> Steps:
        at = yield from self._run(_SPACE, at)
        if not self._is(at, token):
            raise _malformed(at)
        return at + 1

    def _run(self, pattern: re.Pattern[bytes], at: int) -> Steps:
        """The end of what a pattern matches from `at` on."""
        self._marks -= 1
        if not self._marks:
            raise TooManyMarks
        self._left -= MARK_COST
        while True:
            if self._left <= 0:
                self._left = self._step
                yield
            stop = at + self._left
            match = pattern.match(self._data, at, stop)
            end = at if match is None else match.end()
            self._left -= end - at
            if end < stop or end == at:
                return end
            at = end

    def _is(self, at: int, token: bytes) -> bool:
        return self._data.startswith(token, at)


def _names(key: bytes, name: str) -> bool:
    try:
        return bool(msgspec.json.decode(key) == name)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False  # cut off: longer than the name in any spelling


def _malformed(at: int) -> ValueError:
    return ValueError(f"JSON is malformed near byte {at}")
