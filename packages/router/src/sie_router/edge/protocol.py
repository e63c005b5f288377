"""The HTTP side of the router: uvicorn's protocol with an answer that leaves in one piece.

uvicorn writes the head and the body of a response separately, and uvloop sends each at once. Sending is the most
expensive thing a proxy does. It also checks each header with regular expressions; here one count over the whole head
finds the same thing: a line break that a value smuggled in.
"""

import asyncio
import sys
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sie_protocol.errors import ErrorCode, Problem
from sie_router.data.answers import refusal
from sie_router.data.call import GONE, Gone
from sie_router.data.deadline import Deadline
from sie_router.data.express import MAX_BODY_BYTES, App, Begun, Express, is_express
from sie_router.data.incoming import RawHeaders, Scope
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
    """uvicorn's HTTP protocol with such exchanges, which also tells whoever wants to know that the client is gone.

    A short inference request waits until it is whole and is given to `express`. What that does not take, and everything
    else, is an exchange with the ASGI application.
    """

    _gone: Gone | None = None
    _length = 0
    _parts: list[bytes] | None = None  # the body of a request for `express` that is not whole yet
    _begun: Begun | None = None
    _stays = True

    def __init__(self, *args: Any, express: Express | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._express = express

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._idle = Deadline(self.loop, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._idle.clear()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        self._idle.close()
        self._leave_express()
        super().connection_lost(exc)
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.gone()
        if self._gone is not None:
            self._gone.tell()

    def shutdown(self) -> None:
        """Finish what was begun, and close."""
        self._leave_express()
        self._stays = False
        if self._begun is None:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the server's words are not ours
        """Refuse what is no HTTP; in the middle of an answer there is no place for another one."""
        self._leave_express()
        if self._is_free:
            self.transport.write(malformed())
            self.transport.close()
        else:
            self.transport.abort()

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

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._length = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._length = sys.maxsize
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of a request came; as uvicorn's, without a mount point and a limit, which are not used here."""
        scope = self._new_scope()
        self.scope = scope
        if self.parser.should_upgrade():  # of these uvicorn knows more
            self._gone = scope[GONE] = Gone()
            super().on_headers_complete()
            return
        target = httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        version = scope["http_version"] = self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = target.path
        scope["query_string"] = target.query or b""
        stays = version != "1.0" and self.parser.should_keep_alive()
        is_free = self._is_free
        is_short = self._length <= MAX_BODY_BYTES and not self.expect_100_continue
        if is_short and is_free and stays and self._express is not None and is_express(scope):
            self._parts = []
            return
        exchange = self._exchange(scope, stays=stays)
        if is_free:
            self._start_asgi_task(exchange, self.app)
        else:  # pipelined: answers keep the order of requests
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        parts = self._parts
        if parts is None or self._express is None:
            super().on_message_complete()
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._begun = self._express.begin(cast("Scope", self.scope), data, self)
        if self._begun is None:
            self._leave_express()
            super().on_message_complete()
        self._parts = None

    # What `express` asks for

    def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer. Its headers were parsed, or made here: none holds a line break."""
        lines = [STATUS_LINE[status]]
        lines += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        lines += [b"%b: %b\r\n" % header for header in headers]
        lines.append(b"\r\n" if self._stays else b"connection: close\r\n\r\n")
        lines.append(body)
        self._begun = None
        self.transport.write(b"".join(lines))
        if not self._stays:
            self.transport.close()
        self.on_response_complete()

    def go_on(self, scope: Scope, app: App) -> None:
        """Have an application serve the request in a task."""
        self._begun = None
        exchange = self._exchange(scope, stays=self._stays, is_latest=not self.pipeline)
        exchange.more_body = False
        self._start_asgi_task(exchange, cast("Any", app))

    def _leave_express(self) -> None:
        """Serve what came of a request so far as any other."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        exchange = self._exchange(self.scope, stays=True)
        exchange.body += b"".join(parts)
        if parts:
            exchange.message_event.set()
        self._start_asgi_task(exchange, self.app)

    @property
    def _is_free(self) -> bool:
        return self._begun is None and (self.cycle is None or self.cycle.response_complete)

    def _new_scope(self) -> Any:
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }

    def _exchange(self, scope: Any, *, stays: bool, is_latest: bool = True) -> Exchange:
        gone = scope[GONE] = Gone()
        exchange = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=stays,
            on_response=self.on_response_complete,
        )
        if is_latest:
            self.cycle, self._gone = exchange, gone
        return exchange
