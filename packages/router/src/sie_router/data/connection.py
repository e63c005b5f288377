"""One HTTP/1.1 connection to a worker: writes a request, reads one framed response at a time.

A hand-written client, because this is the hot path: parsing is httptools (C), there is no task, stream or lock per
request, and a small response is one callback. Only framed responses (Content-Length or chunked) are accepted: of any
other kind nobody can tell a complete one from one that was cut.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from sie_router.data.deadline import Deadline

SMALL_RESPONSE_BYTES: Final = 1 << 20
HIGH_WATER_BYTES: Final = 256 << 10
_BODILESS: Final = frozenset({204, 304})

Headers = list[tuple[bytes, bytes]]


class WorkerUnreachable(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """No connection could be made; nothing was sent."""


class ConnectionCut(Exception):  # noqa: N818
    """The connection broke before the response was complete.

    `received`: whether any of it had arrived, or the worker is lost; a new connection to it would not help.
    """

    def __init__(self, reason: str, *, received: bool) -> None:
        super().__init__(reason)
        self.received = received


class BudgetSpent(Exception):  # noqa: N818
    """The worker did not answer in the time a request may take."""


class Reply:
    """A worker's answer; names of headers are in lower case.

    `body` is None when it is too long to hold: then `read` yields it piece by piece.
    """

    __slots__ = ("_connection", "body", "headers", "status")

    def __init__(
        self, status: int, headers: Headers, body: bytes | None, connection: "Connection | None" = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._connection = connection  # while the rest of a long body is to come

    async def read(self) -> bytes:
        """The next piece of a long body; empty at its end.

        Raises:
            ConnectionCut: the rest will never come.
            BudgetSpent: it did not come in time.
        """
        data = b"" if self._connection is None else await self._connection.read()
        if not data:
            self._connection = None
        return data

    def close(self) -> None:
        """Give up on the rest of a long body; does nothing once it was read to its end."""
        if self._connection is not None:
            self._connection.give_up()
            self._connection = None


Came = Reply | ConnectionCut | BudgetSpent


class Connection(asyncio.Protocol):
    """Used by one request at a time. `on_free` and `on_closed` tell the pool that owns it."""

    __slots__ = (
        "_can_stay", "_chunked", "_complete", "_deadline", "_error", "_headers", "_is_idle", "_is_small", "_length",
        "_loop", "_on_closed", "_on_free", "_parser", "_parts", "_paused", "_sending", "_size", "_tell", "_transport",
        "_waiter", "_writable", "idle_since", "received",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[["Connection"], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self._loop = loop
        self._on_free = on_free
        self._on_closed = on_closed
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._tell: Callable[[Came], None] | None = None  # until the request has its reply, or never will
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._deadline = Deadline(loop, self._out_of_time)
        self._is_idle = True
        self._sending = False
        self._paused = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.received = False
        self._headers: Headers = []
        self._parts: list[bytes] = []
        self._size = 0
        self._length = -1
        self._chunked = False
        self._is_small = False
        self._complete = False
        self._can_stay = False
        self._error: ConnectionCut | BudgetSpent | None = None

    # What a request does

    def start(self, budget_s: float, tell: Callable[[Came], None]) -> None:
        """Begin a request; `tell` hears once what came of it."""
        self._reset()
        self._is_idle = False
        self._tell = tell
        if self._transport is None or self._transport.is_closing():
            self._fail(ConnectionCut("the connection was already closed", received=False))
        else:
            self._deadline.set(budget_s)

    def write(self, data: bytes) -> None:
        """Send bytes of the request; kept in memory as long as the worker does not take them."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def write_slowly(self, data: bytes) -> None:
        """Send bytes of a long request as fast as the worker takes them."""
        self._sending = True
        if self._writable is not None:
            await self._writable
        self.write(data)

    def sent(self) -> None:
        """The long request is complete."""
        self._sending = False

    def give_up(self) -> None:
        """Close at once, whatever was on its way."""
        self._fail(ConnectionCut("the router gave up on this request", received=self.received))

    def cut(self, reason: str) -> None:
        """Close at once, because the worker is lost."""
        self._fail(ConnectionCut(reason, received=True))

    @property
    def is_usable(self) -> bool:
        """True when another request may be sent."""
        return self._is_idle and self._transport is not None and not self._transport.is_closing()

    async def read(self) -> bytes:
        """The next piece of a long body; see `Reply.read`."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._complete:
                self._free()
                return b""
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; nobody wants it any more if it was given up while it was being made."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._is_idle:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came; after a complete response they can only be a worker's mistake."""
        if self._is_idle or self._complete:
            self._close()
            return
        self.received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionCut(f"unreadable response: {error}", received=True))

    def eof_received(self) -> None:
        """The worker will send no more."""

    def pause_writing(self) -> None:
        """The worker takes bytes slower than they come."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The worker caught up."""
        self._release_writer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        reason = "the worker closed the connection" if exc is None else str(exc)
        self._fail(ConnectionCut(reason, received=self.received))
        self._on_closed(self)

    # What the parser tells

    def on_message_begin(self) -> None:
        """A response begins; one that nobody asked for must not become the answer to the next request."""
        if self._complete:
            self._close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers come here too, after the reply was handed over, and are dropped with it."""
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._chunked = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete; a long body is handed over from here on."""
        status = self._parser.get_status_code()
        if not 100 <= status < 600:  # noqa: PLR2004 - what HTTP has
            self._fail(ConnectionCut(f"the response has status {status}", received=True))
            return
        if status < 200 or self._tell is None:  # noqa: PLR2004 - informational responses
            return
        if self._length < 0 and not self._chunked and status not in _BODILESS:
            self._fail(ConnectionCut("the response has neither Content-Length nor chunks", received=True))
            return
        self._is_small = status in _BODILESS or 0 <= self._length <= SMALL_RESPONSE_BYTES
        if not self._is_small:
            self._say(Reply(status, self._taken_headers(), None, self))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._parts.append(body)
        if self._is_small:
            return
        self._size += len(body)
        if self._size > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """The response is complete; the connection is free once its body was taken."""
        if self._error is not None or self._complete:
            self._close()  # one response too many
            return
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - the real response follows
            self._headers, self._length, self._chunked = [], -1, False
            return
        self._complete = True
        self._can_stay = self._parser.should_keep_alive()
        self._deadline.clear()
        if not self._is_small:
            self._wake()
            return
        parts = self._parts
        reply = Reply(status, self._taken_headers(), parts[0] if len(parts) == 1 else b"".join(parts))
        self._free()
        self._say(reply)

    def _taken_headers(self) -> Headers:
        """The headers of this response; what comes after it in the same piece is not added to them."""
        headers, self._headers = self._headers, []
        return headers

    # Ends

    def _out_of_time(self) -> None:
        self._fail(BudgetSpent("the worker did not answer in time"))

    def _say(self, came: Came) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(came)

    def _fail(self, error: ConnectionCut | BudgetSpent) -> None:
        """End whoever waits with this error, and close. A finished response is not touched."""
        self._release_writer()
        if not self._complete and not self._is_idle and self._error is None:
            self._error = error
            self._say(error)
            self._wake()
        self._close()

    def _free(self) -> None:
        # A response that overtook its request leaves the worker reading the rest of it: never reuse that.
        if self._can_stay and not self._sending:
            self._is_idle = True
            self._on_free(self)
        else:
            self._close()

    def _close(self) -> None:
        self._is_idle = False
        self._deadline.close()
        if self._transport is not None:
            self._transport.abort()

    def _release_writer(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
