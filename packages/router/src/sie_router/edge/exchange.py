"""One request served by the ASGI application, and its answer.

The head of an answer waits for its first piece of body, so that both leave in one write: sending is the most expensive
thing a proxy does. Nothing is looked at twice: one count over the head finds a line break that a value smuggled in.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.types import ASGIApp

from sie_protocol.codec import body_stopped
from sie_protocol.errors import ErrorCode, Problem
from sie_router.data.answers import refusal
from sie_router.data.call import GONE, Gone

MAX_UNREAD_BYTES: Final = 64 << 10  # of a body that the application has not taken yet
_BODILESS: Final = frozenset({204, 304})
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINE: Final = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(100, 600)
}

logger = logging.getLogger(__name__)


class Line(Protocol):
    """The connection that an exchange takes place on."""

    def standing(self, *, stays: bool) -> bytes:
        """The headers of every answer, and whether the connection stays after this one."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken most of what was sent."""
        ...

    def balance(self) -> None:
        """There may be room for more of the body."""
        ...

    def await_body(self) -> None:
        """The application waits for more of the body; call `starve` if none comes."""
        ...

    def over(self) -> None:
        """The answer is complete."""
        ...

    def abort(self, *, by_reset: bool = False) -> None:
        """Break the connection, so that nobody takes what was sent for a whole answer.

        `by_reset`: the usual end of a connection would be the end of the answer.
        """
        ...


class Exchange:
    """The connection feeds it, the application takes with `receive` and answers with `send`."""

    def __init__(self, scope: Any, line: Line, *, stays: bool, expects: bool) -> None:
        self.is_over = False
        self._scope = scope
        self._line = line
        self._stays = stays
        self._expects = expects  # the client waits for a word before it sends the body
        self._gone = scope[GONE] = Gone()
        self._body = bytearray()
        self._is_whole = False
        self._fed_bytes = 0
        self._is_hungry = False  # the application waits for more of the body
        self._starved_s = 0.0  # for how long it has, in vain
        self._news = asyncio.Event()
        self._head = b""  # until the first piece of the body
        self._is_started = False
        self._is_chunked = False
        self._is_endless = False
        self._left = 0  # bytes that Content-Length still promises

    # What the connection tells

    def feed(self, data: bytes) -> None:
        """A piece of the body; nobody wants it once the answer is complete."""
        if not self.is_over:
            self._body += data
            self._fed_bytes += len(data)
            self._news.set()

    @property
    def has_room(self) -> bool:
        """False when there should be no more of the body until some of it was taken."""
        return self.is_over or len(self._body) <= MAX_UNREAD_BYTES

    def end(self) -> None:
        """The body is whole."""
        self._is_whole = True
        self._news.set()

    def starve(self, pause_s: float) -> None:
        """No more of the body came for so long; does nothing when nobody waits for it."""
        if self._is_hungry:
            self._starved_s = pause_s
            self._news.set()

    def gone(self) -> None:
        """The client went away."""
        self._news.set()
        self._gone.tell()

    async def run(self, app: ASGIApp) -> None:
        """Have the application serve it."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._line.abort(by_reset=self._is_endless)  # the server ends and waits no longer
            raise
        except Exception:
            logger.exception("the application failed")
        if self.is_over or self._gone.is_told:
            return
        if self._is_started:  # cut short, which whoever did it has logged
            self._line.abort(by_reset=self._is_endless)
            return
        answer = refusal(Problem(ErrorCode.INTERNAL_ERROR, "the router failed on this request; its log says why"))
        headers = [*answer.headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": answer.body})

    # What the application calls

    async def receive(self) -> Any:
        """The next message for the application.

        Raises:
            Problem: INVALID_INPUT, the body stopped.
        """
        if self._expects and not self._is_started:
            self._line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects = False
        if not self.is_over and not self._gone.is_told:
            await self._progress()
        if self.is_over or self._gone.is_told:
            return {"type": "http.disconnect"}
        if self._starved_s:
            raise body_stopped(self._fed_bytes, self._starved_s)
        data = bytes(self._body)
        self._body.clear()
        self._line.balance()
        return {"type": "http.request", "body": data, "more_body": not self._is_whole}

    async def send(self, message: Any) -> None:
        """Take a message of the application.

        Raises:
            RuntimeError: the application broke the order of messages, the announced length or a header.
        """
        if not self._gone.is_told:
            await self._line.drain()
        if self._gone.is_told:
            return
        if not self._is_started:
            self._begin(message["status"], message.get("headers", ()))
        elif not self.is_over:
            self._pass(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected message '{message['type']}', the response is complete")

    async def _progress(self) -> None:
        if not self._news.is_set() and not self._is_whole:
            self._is_hungry = True
            self._line.await_body()
        await self._news.wait()
        self._is_hungry = False
        self._news.clear()

    def _begin(self, status: int, headers: Any) -> None:
        """Build the head; how the body is framed follows from the headers."""
        lines = []
        is_framed = False
        for name, value in headers:
            if name == b"connection":
                self._stays = self._stays and b"close" not in value.lower()
                continue
            if name == b"content-length":
                is_framed, self._left = True, int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        if not is_framed and status not in _BODILESS and self._scope["method"] != "HEAD":
            if self._scope["http_version"] == "1.0":  # knows no chunks: the end of the connection ends the body
                self._stays, self._is_endless = False, True
            else:
                self._is_chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        own = b"".join(lines)
        if not own.count(b"\n") == own.count(b"\r") == len(lines):
            raise RuntimeError("a header of the response holds a line break")
        self._is_started = True
        self._head = b"%b%b%b\r\n" % (STATUS_LINE[status], self._line.standing(stays=self._stays), own)

    def _pass(self, body: bytes, *, is_last: bool) -> None:
        if self._scope["method"] == "HEAD":
            body, self._left = b"", 0
        elif self._is_endless:
            pass
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if is_last else b""
        else:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("the length of the response is not what its Content-Length says")
        head, self._head = self._head, b""
        self._line.write(head + body if head else body)
        if is_last:
            self.is_over = True
            self._news.set()
            self._line.over()
