"""The only module that touches HTTP: one request in, one `Answer` or `Lost` out, never an exception of the library.

Closing a transport ends requests that are in flight in other threads or tasks; the last of them closes the
connections, so that nobody closes a connection that somebody else reads from.
"""

import asyncio
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Final

import httpx

from sie_protocol.headers import SDK_VERSION
from sie_protocol.versions import VERSION
from sie_sdk.messages import Answer, Loss, Lost, Outcome, Request
from sie_sdk.settings import Settings

CONNECT_TIMEOUT_S: Final = 10.0
# Shorter than the 5 s after which common servers close an idle connection: they never close one while we write to it.
KEEPALIVE_S: Final = 4.0
CLOSED: Final = Lost(Loss.CLIENT_CLOSED, "the client was closed")

_CAUSES_SHOWN: Final = 8


class SyncTransport:
    """One connection pool for all threads."""

    def __init__(self, settings: Settings) -> None:
        self._base_url = settings.base_url
        self._headers = _common_headers(settings)
        self._http = httpx.Client(limits=_limits(settings), follow_redirects=False)
        self._lock = threading.Lock()  # guards the three below
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._in_flight = 0
        self._closed = False

    def send(self, request: Request, timeout_s: float) -> Outcome:
        """Send once and read the whole answer."""
        if not self._enter():
            return CLOSED
        try:
            outcome = self._exchange(request, timeout_s)
            return CLOSED if isinstance(outcome, Lost) and self._closed else outcome
        finally:
            self._leave()

    def close(self) -> None:
        """End requests in flight and close all connections; may be called more than once and from any thread."""
        with self._lock:
            self._closed = True
            sockets = tuple(self._sockets)
            is_idle = self._in_flight == 0
        for each in sockets:
            _shut_down(each)
        if is_idle:
            self._http.close()

    def _enter(self) -> bool:
        with self._lock:
            self._in_flight += not self._closed
            return not self._closed

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
            is_last = self._closed and self._in_flight == 0
        if is_last:
            self._http.close()

    def _exchange(self, request: Request, timeout_s: float) -> Outcome:
        end = time.monotonic() + timeout_s
        message = _message(self._base_url, self._headers, request, timeout_s)
        message.extensions["trace"] = self._traced
        try:
            response = self._http.send(message, stream=True)
            with closing(response):
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > end:
                        return _timed_out(timeout_s)
            return _answer(response, b"".join(chunks))
        except httpx.RequestError as error:
            return _lost(error, timeout_s)

    def _traced(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by the connection pool; remembers each new socket, because a blocked read ends only by shutting it."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        opened = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets.add(opened)
            is_late = self._closed
        if is_late:
            _shut_down(opened)


class AsyncTransport:
    """One connection pool for all tasks of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._base_url = settings.base_url
        self._headers = _common_headers(settings)
        self._http = httpx.AsyncClient(limits=_limits(settings), follow_redirects=False)
        self._in_flight: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._closed = False

    async def send(self, request: Request, timeout_s: float) -> Outcome:
        """Send once and read the whole answer."""
        if self._closed:
            return CLOSED
        message = _message(self._base_url, self._headers, request, timeout_s)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                self._in_flight.add(limit)
                response = await self._http.send(message)
        except TimeoutError:
            return CLOSED if self._closed else _timed_out(timeout_s)
        except httpx.RequestError as error:
            return CLOSED if self._closed else _lost(error, timeout_s)
        finally:
            self._in_flight.discard(limit)
            if not self._in_flight:
                self._idle.set()
        return _answer(response, response.content)

    async def close(self) -> None:
        """End requests in flight and close all connections; may be called more than once."""
        self._closed = True
        for limit in tuple(self._in_flight):
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()
        await self._http.aclose()


def _common_headers(settings: Settings) -> tuple[tuple[str, str], ...]:
    authorization = (("Authorization", f"Bearer {settings.api_key}"),) if settings.api_key else ()
    return (
        ("User-Agent", f"sie-sdk/{VERSION}"),
        (SDK_VERSION, VERSION),
        ("Accept-Encoding", "identity"),  # vectors do not compress
        *authorization,
    )


def _limits(settings: Settings) -> httpx.Limits:
    connections = settings.max_connections
    return httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
    )


def _message(base_url: str, headers: tuple[tuple[str, str], ...], request: Request, timeout_s: float) -> httpx.Request:
    timeouts = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
    return httpx.Request(
        request.method,
        base_url + request.path,
        headers=[*headers, *request.headers],
        content=request.body,
        extensions={"timeout": timeouts.as_dict()},
    )


def _answer(response: httpx.Response, body: bytes) -> Answer:
    return Answer(response.status_code, dict(response.headers), body, time.time())


def _timed_out(timeout_s: float) -> Lost:
    return Lost(Loss.TIMED_OUT, f"no complete answer within {timeout_s:g} s")


def _lost(error: httpx.RequestError, timeout_s: float) -> Lost:
    reason = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            loss = Loss.CONNECT_IMPOSSIBLE if any(map(_is_lasting, _causes(error))) else Loss.CONNECT_FAILED
            return Lost(loss, f"no connection to {error.request.url.netloc.decode()}: {reason}")
        case httpx.PoolTimeout():
            return Lost(Loss.TIMED_OUT, f"every connection was in use for {timeout_s:g} s; raise max_connections")
        case httpx.TimeoutException():
            return _timed_out(timeout_s)
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return Lost(Loss.CONNECT_IMPOSSIBLE, reason)
        case _:
            return Lost(Loss.CONNECTION_LOST, reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(_CAUSES_SHOWN):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _is_lasting(error: BaseException) -> bool:
    """True for failures to connect that time does not heal: a name nobody has, a certificate nobody trusts."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    return isinstance(error, ssl.SSLCertVerificationError)


def _shut_down(opened: socket.socket) -> None:
    with suppress(OSError):  # closed meanwhile
        # Of the plain socket, also below TLS: only the kernel's end wakes a thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
