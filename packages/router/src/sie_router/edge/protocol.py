"""The HTTP side of the router: uvicorn's protocol with an answer that leaves in one piece.

uvicorn writes the head and the body of a response separately, and uvloop sends each at once. Sending is the most
expensive thing a proxy does. It also checks each header with regular expressions; here one count over the whole head
finds the same thing: a line break that a value smuggled in.
"""

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sie_protocol.errors import ErrorCode, Problem
from sie_router.data.answers import refusal
from sie_router.data.call import GONE, Gone
from sie_router.data.deadline import Deadline
from sie_router.edge.malformed import malformed

_BODILESS = frozenset({204, 304})


class Exchange(RequestResponseCycle):
    """One request and its answer. The head waits for the first piece of the body, so that both need one write."""

    _head: bytes = b""

    async def send(self, message: Any) -> None:
        """Take a message of the application.

        Raises:
            RuntimeError: the application broke the order of messages, the announced length or a header.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._begin(message["status"], message.get("headers", ()))
        elif not self.response_complete:
            self._pass(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected message '{message['type']}', the response is complete")

    async def send_500_response(self) -> None:
        """Answer for an application that failed; uvicorn has logged the exception."""
        answer = refusal(Problem(ErrorCode.INTERNAL_ERROR, "the router failed on this request; its log says why"))
        headers = [*answer.headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": answer.body})

    def _begin(self, status: int, headers: Any) -> None:
        """Build the head; how the body is framed follows from the headers."""
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            if name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            if name == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and status not in _BODILESS and self.scope["method"] != "HEAD":
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines):
            raise RuntimeError("a header of the response holds a line break")
        self.response_started = True
        self.waiting_for_100_continue = False
        self._head = head + b"\r\n"

    def _pass(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if is_last else b""
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the response is longer than its Content-Length")
        self.transport.write(self._head + body if self._head else body)
        self._head = b""
        if is_last:
            self._finish()

    def _finish(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("the response is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with such exchanges, which also tells whoever wants to know that the client is gone."""

    _gone: Gone | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._idle = Deadline(self.loop, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._idle.clear()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """A request is over; as uvicorn's, with a timer that is not made anew each time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle.set(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        self._idle.close()
        super().connection_lost(exc)
        if self._gone is not None:
            self._gone.tell()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the server's words are not ours
        """Refuse what is no HTTP; in the middle of an answer there is no place for another one."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(malformed())
            self.transport.close()
        else:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head of a request came; as uvicorn's, without a mount point and a limit, which are not used here."""
        self._gone = self.scope[GONE] = Gone()  # type: ignore[typeddict-unknown-key]
        if self.parser.should_upgrade():  # of these uvicorn knows more
            super().on_headers_complete()
            return
        version, scope = self.parser.get_http_version(), self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        target = httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = target.path
        scope["query_string"] = target.query or b""
        under_way = self.cycle
        exchange = self.cycle = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if under_way is None or under_way.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:  # pipelined: answers keep the order of requests
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))
