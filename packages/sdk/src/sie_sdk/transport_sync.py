"""Sends requests for any number of threads: one request in, one `Answer` or `Lost` out.

Each connection is an httpx client of its own, lent to one thread at a time. Threads that share httpx's connection pool
now and then close each other's connections (seen with httpcore 1.0: about one request in a thousand): one thread asks
whether an idle connection was dropped by the server just when another has sent on it and the answer comes in. Whoever
gives an httpx client of their own has that pool; such a lost connection is one of those that calls outlive.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any
from weakref import WeakSet

import httpx

from sie_sdk import wire
from sie_sdk.messages import Outcome, Request
from sie_sdk.settings import Settings


class SyncTransport:
    """The connections of one client, most recently used first. Closing it ends the requests in flight.

    With `given` all requests go through it. It stays open, and requests in flight end as it lets them.
    """

    def __init__(self, settings: Settings, given: httpx.Client | None) -> None:
        wire.check_kind(given, httpx.Client)
        self._given = given
        self._writer = wire.Writer(settings) if given is None else wire.Writer(settings, given.build_request)
        self._connect = _connecting() if given is None else partial(_Foreign, given)
        self._max_connections = settings.max_connections
        self._changed = threading.Condition()  # guards the four below
        self._idle: deque[_Connection] = deque()
        self._lent: dict[_Connection, threading.Thread] = {}
        self._barred = WeakSet[threading.Thread]()
        self._closed = False

    def send(self, request: Request, timeout_s: float) -> Outcome:
        """Send once and read the whole answer within `timeout_s`.

        A server that sends a part of the body and then nothing can stretch this to twice the time.
        """
        end = time.monotonic() + timeout_s
        connection = self._borrow(timeout_s)
        if connection is None:
            return self._unless_closed(wire.no_connection_free(timeout_s))
        try:
            left_s = max(end - time.monotonic(), 0.001)
            body, response = connection.exchange(self._writer.write(request, left_s), end)
        except httpx.RequestError as error:
            return self._unless_closed(wire.lost(error, timeout_s))
        finally:
            self._give_back(connection)
        return self._unless_closed(wire.timed_out(timeout_s)) if body is None else wire.read(response, body)

    def close(self) -> None:
        """End requests in flight and close all connections; may be called more than once and from any thread."""
        with self._changed:
            self._closed = True
            idle, lent = tuple(self._idle), tuple(self._lent)
            self._idle.clear()
            self._changed.notify_all()
        for connection in lent:
            connection.interrupt()
        for connection in idle:
            connection.close()

    def interrupt(self, threads: Collection[threading.Thread]) -> None:
        """End the requests that these threads have in flight, and any later one, as if their connections were lost."""
        with self._changed:
            self._barred.update(threads)
            theirs = [connection for connection, thread in self._lent.items() if thread in threads]
        for connection in theirs:
            connection.interrupt()

    def _unless_closed(self, outcome: Outcome) -> Outcome:
        return wire.CLOSED if self._is_closed else outcome

    @property
    def _is_closed(self) -> bool:
        return self._closed or (self._given is not None and self._given.is_closed)

    def _borrow(self, timeout_s: float) -> "_Connection | None":
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._is_closed or len(self._lent) < self._max_connections, timeout_s
            ):
                return None
            if self._is_closed:
                return None
            connection = self._idle.pop() if self._idle else self._connect()
            borrower = self._lent[connection] = threading.current_thread()
            if borrower in self._barred:
                connection.interrupt()
            return connection

    def _give_back(self, connection: "_Connection") -> None:
        connection.idle_since = time.monotonic()
        with self._changed:
            del self._lent[connection]
            unused = [connection] if connection.is_interrupted else []
            if not unused:
                self._idle.append(connection)
            while self._idle and (self._closed or connection.idle_since - self._idle[0].idle_since > wire.KEEPALIVE_S):
                unused.append(self._idle.popleft())
            self._changed.notify()
        for each in unused:
            each.close()


class _Connection:
    """One connection, used by the thread that borrowed it; only `interrupt` may come from another."""

    def __init__(self, http: httpx.Client) -> None:
        self.idle_since = 0.0
        self._http = http
        self._lock = threading.Lock()  # guards the two below
        self._socket: socket.socket | None = None
        self._interrupted = False

    def exchange(self, message: httpx.Request, end: float) -> tuple[bytes | None, httpx.Response]:
        """Send the message; None instead of the body when the monotonic time `end` came first."""
        timeouts = message.extensions["timeout"]

        def traced(event: str, info: Mapping[str, Any]) -> None:
            # Called before and after each phase: what one phase used up the next ones no longer have.
            timeouts["write"] = timeouts["read"] = max(end - time.monotonic(), 0.001)
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                self._opened(info["return_value"].get_extra_info("socket"))

        message.extensions["trace"] = traced
        response = self._http.send(message, stream=True, follow_redirects=False)
        chunks = []
        with closing(response):
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if time.monotonic() > end:
                    return None, response
        return b"".join(chunks), response

    def interrupt(self) -> None:
        """Make the borrower's read fail at once, now or as soon as it has a connection."""
        with self._lock:
            self._interrupted = True
            opened = self._socket
        if opened is not None:
            _shut_down(opened)

    @property
    def is_interrupted(self) -> bool:
        """True when it can carry nothing any more."""
        with self._lock:
            return self._interrupted

    def close(self) -> None:
        """Close the connection; nobody may be using it."""
        self._http.close()

    def _opened(self, opened: socket.socket) -> None:
        with self._lock:
            self._socket = opened
            is_late = self._interrupted
        if is_late:
            _shut_down(opened)


class _Foreign(_Connection):
    """The caller's own httpx client: others may use its connections, so none is cut here."""

    def interrupt(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _connecting() -> "Callable[[], _Connection]":
    ssl_context = httpx.create_ssl_context()  # 30 ms, hence one for all connections
    return lambda: _Connection(httpx.Client(verify=ssl_context, limits=wire.limits(1)))


def _shut_down(opened: socket.socket) -> None:
    with suppress(OSError):  # closed meanwhile
        # Of the plain socket, also below TLS: only the kernel's end wakes a thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
