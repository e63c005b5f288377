"""The HTTP side of the router: one connection of a client, by httptools.

uvicorn listens, runs the application's lifespan and WebSockets and ends gracefully; it makes one of these for each
connection, and knows of it only that it is in `connections` and has `shutdown`.
"""

import asyncio
import logging
import socket
import struct
import sys
from collections import deque
from typing import Any, Final, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from sie_protocol.codec import MAX_HEAD_BYTES, PAUSE_S
from sie_router.data.deadline import Deadline
from sie_router.data.fast_path import MAX_BODY_BYTES, App, Begun, FastPath, takes_fast_path
from sie_router.data.incoming import RawHeaders, Scope
from sie_router.edge.exchange import STATUS_LINE, Exchange
from sie_router.edge.malformed import malformed
from sie_router.edge.request import address, head_again, offers_websocket, target_of
from sie_router.edge.slow_clients import SlowClient

PAUSE_AT: Final = 16  # pipelined requests wait: read no more, which also means not to notice that the client is gone
_RESET: Final = struct.pack("ii", 1, 0)  # linger no time
MAX_WAITING: Final = 100  # what came in one piece may be more; requests after these are not accepted

logger = logging.getLogger(__name__)


class Protocol(asyncio.Protocol):
    """Serves the requests of one connection in their order.

    A short inference request waits until it is whole and goes to the fast path. What that does not take, and everything
    else, is an exchange with the ASGI application. A request that comes before the last one is answered waits. A client
    that neither sends what it announced nor takes its answer is given up after `pause_s`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        fast_path: FastPath | None,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._app: ASGIApp = config.loaded_app
        self._fast_path = fast_path
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = self._new_parser()
        self._idle = Deadline(self._loop, self._idled)
        self._pause_s = pause_s
        self._more = Deadline(self._loop, self._starved)
        self._serving: Begun | Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._last_words = b""  # for a client whose next request is none
        self._stays = True  # False: close once everything accepted is answered
        self._is_deaf = False  # what comes now is not read any more
        self._is_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._defaults: RawHeaders | None = None
        self._standing = b""
        self._is_draining = False
        self._says_close = False
        self._clear()

    def _clear(self) -> None:
        """Expect another request."""
        self._head_bytes = 0  # as many came of a head, or of what is around a body; 1: it began in this piece
        self._url = b""
        self._headers: RawHeaders = []
        self._scope: dict[str, Any] = {}
        self._length = 0
        self._expects = False
        self._is_last = False
        self._upgrades = False
        self._parts: list[bytes] | None = None  # the body of a request for the fast path
        self._receiving: Exchange | None = None  # any other one

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it
        self._slow_client = SlowClient(self._loop, self._transport, self._pause_s)
        self._server, self._client = (address(transport, name) for name in ("sockname", "peername"))
        self._state.connections.add(cast("Any", self))
        self._idle.set(self._config.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        while data and not self._is_deaf:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                logger.warning("a client sent what is no HTTP: %r", error.__context__ or error)
                self._refuse()
                return
            except httptools.HttpParserUpgrade as offer:
                rest = data[offer.args[0] :]
                if self._upgrades:
                    self._upgrade(rest)
                    return
                data = head_again(self._scope, self._url, is_offer=False) + rest
                self._parser = self._new_parser()  # the other one takes the body of such a request for no HTTP
            else:
                if self._head_bytes:
                    self._head_bytes += 1 if self._head_bytes == 1 else len(data)
                    if self._head_bytes > MAX_HEAD_BYTES:
                        self._refuse()
                return

    def eof_received(self) -> None:
        """The client will send no more; the transport closes."""

    def pause_writing(self) -> None:
        """The client takes answers slower than it asks: no more questions until it did."""
        self._writable = self._loop.create_future()
        self._slow_client.begin()
        self.balance()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._release_writer()
        self._slow_client.end()
        self.balance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it was lost
        """The client went away. A request whose body is not whole is one that it gave up."""
        self._state.connections.discard(cast("Any", self))
        self._close_timers()
        self._leave_fast_path()
        self._waiting.clear()
        self._release_writer()
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.gone()

    # What the server asks for

    def shutdown(self) -> None:
        """Finish what was begun, and close."""
        self._stays = False
        if self._serving is None and self._parts is None:
            self._close()

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins; it has a limited time until it is served."""
        self._clear()
        self._head_bytes = 1
        if self._serving is None:
            self._idle.set(self._config.timeout_keep_alive)

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers come here too, and are dropped."""
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._length = sys.maxsize
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of a request came."""
        if self._is_deaf:
            return
        parser = self._parser
        version = parser.get_http_version()
        is_old = version == "1.0"
        stays = not is_old and parser.should_keep_alive()
        self._expects = self._expects and not is_old
        target, headers = target_of(self._url), self._headers
        self._scope = scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "method": parser.get_method().decode("ascii"),
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "headers": headers,
        }
        self._headers = []
        self._head_bytes = int(self._length == sys.maxsize)
        if parser.should_upgrade():
            # A body is one of HTTP; whoever reads WebSockets would wait for the next head in it, for ever.
            is_one = scope["method"] == "GET" and not self._length and offers_websocket(headers)
            self._upgrades = is_one and self._serving is None
            return  # the parser stops after such a head
        is_free = self._serving is None and self._writable is None
        is_plain = stays and not self._expects and self._length <= MAX_BODY_BYTES
        if is_plain and is_free and self._fast_path is not None and takes_fast_path(scope):
            self._parts = []
        else:
            self._accept(stays=stays and len(self._waiting) < MAX_WAITING)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._head_bytes = 0
        if self._parts is not None:
            self._parts.append(body)
        elif self._receiving is not None:
            self._receiving.feed(body)
            self.balance()

    def on_chunk_complete(self) -> None:
        """The size of another chunk follows, or trailers."""
        self._head_bytes = 1

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._head_bytes = 0
        parts = self._parts
        if parts is not None and self._fast_path is not None:
            self._serving = self._fast_path.begin(self._scope, parts[0] if len(parts) == 1 else b"".join(parts), self)
            if self._serving is not None:
                self._parts = None
                self._idle.clear()
                return
            self._leave_fast_path()
        if self._receiving is not None:
            self._receiving.end()
            self._receiving = None
            self._is_deaf = self._is_last
            self.balance()

    # What the fast path asks for

    def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer. Its headers were parsed, or made here: none holds a line break."""
        lines = [b"%b: %b\r\n" % header for header in headers]
        self._transport.write(b"".join([STATUS_LINE[status], self.standing(stays=True), *lines, b"\r\n", body]))
        self.over()

    def go_on(self, scope: Scope, app: App) -> None:
        """Have an application serve the request in a task."""
        exchange = Exchange(scope, self, stays=True, expects=False)
        exchange.end()
        self._serve(exchange, app)

    # What an exchange asks for

    def standing(self, *, stays: bool) -> bytes:
        """The headers of every answer, and whether the connection stays after this one."""
        defaults = self._state.default_headers
        if defaults is not self._defaults:  # a new list whenever the date or one of them changes
            self._defaults = defaults
            self._is_draining = (b"connection", b"close") in defaults
            lasting = [b"%b: %b\r\n" % header for header in defaults if header[0] != b"connection"]
            self._standing = b"".join(lasting)
        if stays and (self._waiting or (self._stays and not self._is_draining)):
            return self._standing
        self._says_close = True
        return self._standing + b"connection: close\r\n"

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was sent."""
        if self._writable is not None:
            await self._writable

    def balance(self) -> None:
        """Read what the client sends, or leave it there until there is room."""
        if self._receiving is None:
            reads = self._writable is None and len(self._waiting) < PAUSE_AT
        else:  # it may take answers only once it has sent all
            reads = self._receiving.has_room
        if reads is self._is_paused:
            self._is_paused = not reads
            (self._transport.resume_reading if reads else self._transport.pause_reading)()

    def await_body(self) -> None:
        """The application waits for more of the body."""
        self._more.set(self._pause_s)

    def over(self) -> None:
        """The answer is complete."""
        self._serving = None
        self._state.total_requests += 1
        if self._says_close or not (self._stays or self._waiting):
            self._close()
        elif self._waiting:
            self._serve(self._waiting.popleft(), self._app)
        elif self._last_words:
            self._transport.write(self._last_words)
            self._close()
        else:
            self._idle.set(self._config.timeout_keep_alive)
        self.balance()

    def abort(self, *, by_reset: bool = False) -> None:
        """Break the connection."""
        if by_reset:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    # Steps of the above

    def _accept(self, *, stays: bool) -> Exchange:
        """Serve the request that is being received with the application, now or in its turn."""
        exchange = Exchange(self._scope, self, stays=stays, expects=self._expects)
        self._receiving, self._is_last = exchange, not stays
        if self._serving is None:
            self._serve(exchange, self._app)
        else:
            self._waiting.append(exchange)
        return exchange

    def _serve(self, exchange: Exchange, app: ASGIApp) -> None:
        self._idle.clear()
        self._serving = exchange
        task = self._loop.create_task(exchange.run(app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _leave_fast_path(self) -> None:
        """Serve what came of a request so far as any other."""
        parts, self._parts = self._parts, None
        if parts is not None:
            exchange = self._accept(stays=True)
            for part in parts:
                exchange.feed(part)

    def _refuse(self) -> None:
        """Say that this is no request, after the answers that are still due, and close."""
        self._is_deaf = True
        self._parts = None
        if self._waiting and self._waiting[-1] is self._receiving:
            self._waiting.pop()
        elif self._receiving is not None:  # the application has it, and may have answered
            self._transport.abort()
            return
        self._last_words = malformed()
        if self._serving is None:
            self._transport.write(self._last_words)
            self._close()

    def _upgrade(self, rest: bytes) -> None:
        """Hand the connection over to uvicorn's WebSocket, which reads the head once more."""
        self._state.connections.discard(cast("Any", self))
        self._close_timers()
        make = cast("Any", self._config.ws_protocol_class)
        protocol = make(config=self._config, server_state=self._state, app_state=self._app_state)
        protocol.connection_made(self._transport)
        protocol.data_received(head_again(self._scope, self._url, is_offer=True) + rest)
        self._transport.set_protocol(protocol)

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is not read
        return parser

    def _release_writer(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def _idled(self) -> None:
        self._close()

    def _starved(self) -> None:
        if isinstance(self._serving, Exchange):
            self._serving.starve(self._pause_s)

    def _close(self) -> None:
        """Close once the client has everything."""
        self._transport.close()
        self._slow_client.begin()

    def _close_timers(self) -> None:
        for timer in (self._idle, self._more, self._slow_client):
            timer.close()
