"""A request's body: held whole up to a limit so that it can be sent again, passed through in pieces above it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from io import SEEK_END, BytesIO
from typing import Any, Final

from sie_protocol.codec import body_too_long
from sie_protocol.errors import ErrorCode, Problem
from sie_router.data.admission import Admission

REPLAY_BYTES: Final = 8 << 20

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class ClientGone(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """The client closed its connection."""


class Body:
    """Reads from the client. `data` is what is held; `is_whole` says that this is all of it.

    `can_repeat` says that nothing was passed through yet. `size_bytes` counts what arrived so far, `held_bytes` what
    the admission was charged for. `is_awaited` while its client owes more of it.
    """

    __slots__ = ("_admission", "_content_length", "_max_bytes", "_receive", "can_repeat", "data", "held_bytes",
                 "is_awaited", "is_whole", "size_bytes")  # fmt: skip

    def __init__(self, receive: Receive, content_length: int | None, max_bytes: int, admission: Admission) -> None:
        self._receive = receive
        self._content_length = content_length
        self._max_bytes = max_bytes
        self._admission = admission
        self.data = b""
        self.is_whole = False
        self.is_awaited = False
        self.can_repeat = True
        self.size_bytes = 0
        self.held_bytes = 0

    @classmethod
    def whole(cls, data: bytes, admission: Admission) -> "Body":
        """A body that came with its request; charges the admission.

        Raises:
            Problem: QUEUE_FULL when too much is held already.
        """
        admission.hold(len(data))
        body = cls(_nothing, len(data), len(data), admission)
        body.data = data
        body.is_whole = True
        body.size_bytes = body.held_bytes = len(data)
        return body

    async def fill(self, left_s: float, hold_bytes: int = REPLAY_BYTES) -> None:
        """Read until the body is whole or so many bytes are held, in the time left. Does nothing the second time.

        Raises:
            Problem: INPUT_TOO_LONG, by what was announced or by what came; QUEUE_FULL when too much is held already;
                DEADLINE_EXCEEDED when it did not come in time; INVALID_INPUT when no more of it came for long.
            ClientGone: the rest will never come.
        """
        if self._content_length is not None and self._content_length > self._max_bytes:
            raise body_too_long(self._content_length, self._max_bytes)
        if self.is_filled:
            return
        try:
            async with asyncio.timeout(left_s):
                await self._fill(hold_bytes)
        except TimeoutError as error:
            raise self.late() from error

    async def _fill(self, hold_bytes: int) -> None:
        first = await self._next()
        if self.is_whole:
            self.data = first
            return
        held = BytesIO(first)  # grows in place and gives its bytes away: joining 30 MB would take 20 ms
        held.seek(0, SEEK_END)
        while not self.is_whole and self.size_bytes < hold_bytes:
            held.write(await self._next())
        self.data = held.getvalue()

    def late(self) -> Problem:
        """The refusal of a body that did not come within the time of its request."""
        message = f"the time of this request was over when {self.size_bytes} bytes of its body had come; send less"
        return Problem(ErrorCode.DEADLINE_EXCEEDED, message)

    def replace(self, data: bytes) -> None:
        """Send these bytes instead of those of a whole body; the admission stays charged as it was."""
        self.data = data

    @property
    def is_filled(self) -> bool:
        """True when `fill` has done its work."""
        return self.is_whole or bool(self.data)

    @property
    def wire_length(self) -> int | None:
        """The Content-Length to announce to a worker; None when nobody knows it yet."""
        return len(self.data) if self.is_whole else self._content_length

    async def pieces(self) -> AsyncIterator[bytes]:
        """What is held and then the rest, framed as `wire_length` demands. Can be used once.

        Raises:
            Problem, ClientGone: as in `fill`.
        """
        is_chunked = self.wire_length is None
        self.can_repeat = False
        data, self.data = self.data, b""
        self._admission.release(self.held_bytes)
        self.held_bytes = 0
        while True:
            if data:
                yield b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data
            if self.is_whole:
                break
            data = await self._next(hold=False)
        if is_chunked:
            yield b"0\r\n\r\n"

    async def _next(self, *, hold: bool = True) -> bytes:
        self.is_awaited = True
        message = await self._receive()
        self.is_awaited = False
        if message["type"] == "http.disconnect":
            raise ClientGone
        data: bytes = message.get("body", b"")
        self.is_whole = not message.get("more_body", False)
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise body_too_long(self.size_bytes, self._max_bytes)
        if hold:
            self._admission.hold(len(data))
            self.held_bytes += len(data)
        return data


async def _nothing() -> Message:
    raise AssertionError("nothing is left to read of a whole body")
