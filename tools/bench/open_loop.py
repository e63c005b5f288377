"""Requests that come when they come: a load that does not wait for answers, and what it costs a request to be served.

Arrivals are a Poisson process, drawn beforehand and to the microsecond, as those of clients that know nothing of each
other. A request's time counts from the moment it was due: when no connection is free it waits here, and that is part of
what it took. (wrk's pauses are whole milliseconds, so that its requests come in bursts, and a slow answer delays them.)
"""

import ctypes
import random
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

_PR_SET_TIMERSLACK = 29  # the kernel may wake us 50 us late otherwise
_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Passed:
    """One run: how many a second were answered, and the milliseconds of the median and of the slowest percent."""

    per_second: float
    p50_ms: float
    p99_ms: float


class _Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._got = b""

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def is_answered(self) -> bool:
        """Read what is there; True when the answer is whole.

        Raises:
            SystemExit: the answer is no success, or there will be none.
        """
        data = self.socket.recv(1 << 16)
        self._got += data
        head, is_whole, body = self._got.partition(b"\r\n\r\n")
        if not data or (is_whole and b" 200 " not in head[:16]):
            raise SystemExit(f"a request failed: {self._got[:500]!r}")
        if not is_whole or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return False
        self._got = b""
        return True


def open_loop(port: int, request: bytes, connections: int, per_second: float, seconds: float) -> Passed:
    """Send this request so often, on so many connections at most.

    Raises:
        SystemExit: an answer is no success.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    draw = random.Random(per_second)  # noqa: S311 - the same arrivals for everybody
    free, busy = deque(_Connection(port) for _ in range(connections)), set[_Connection]()
    took: list[float] = []
    now = time.perf_counter
    due = started = now()
    while busy or due < started + seconds:
        is_sending = free and due < started + seconds
        while is_sending and due <= now():
            connection = free.popleft()
            connection.due = due
            connection.socket.sendall(request)
            busy.add(connection)
            due += draw.expovariate(per_second)
            is_sending = free and due < started + seconds
        answered, _, _ = select.select(busy, (), (), max(0.0, due - now()) if is_sending else _WAIT_S)
        for connection in answered:
            if connection.is_answered():
                took.append(now() - connection.due)
                busy.remove(connection)
                free.append(connection)
    rate = len(took) / (now() - started)
    for connection in free:
        connection.socket.close()
    took.sort()
    return Passed(rate, *(took[len(took) * percent // 100] * 1000 for percent in (50, 99)))
