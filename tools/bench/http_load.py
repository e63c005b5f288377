"""A lean load generator: a fixed number of keep-alive connections, each with one request on its way at a time."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Passed:
    """One pass over all requests: each answer's body and seconds, by the request's number, and the seconds of all."""

    bodies: dict[int, bytes] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    total_s: float = 0.0


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as it has the answer to the last one."""

    def __init__(self, requests: Iterator[tuple[int, bytes]], passed: Passed) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._passed = passed
        self._at = -1
        self._sent_at = 0.0
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is sent before all connections are there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it

    def data_received(self, data: bytes) -> None:
        """Collect one answer; there is never more than one on its way."""
        self._buffer += data
        head, found, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < size:
            return
        if b" 200 " not in head[:16]:
            self.finished.set_exception(RuntimeError(f"the server answered {head!r} {body!r}"))
            return
        self._passed.bodies[self._at] = body
        self._passed.seconds[self._at] = time.perf_counter() - self._sent_at
        self._buffer.clear()
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server must not close a connection that still asks."""
        if not self.finished.done():
            self.finished.set_exception(exc or RuntimeError("the server closed the connection"))

    def next(self) -> None:
        """Send the next request, or end; not while the connection is made: uvloop may then wait for it for ever."""
        assert self._transport is not None  # noqa: S101 - set when the connection was made
        self._at, request = next(self._requests, (-1, b""))
        if request:
            self._sent_at = time.perf_counter()
            self._transport.write(request)
        else:
            self.finished.set_result(None)
            self._transport.close()


async def load(port: int, requests: Sequence[bytes], concurrency: int) -> Passed:
    """Send every request once, so many at a time, to a server on this machine."""
    passed, queue, loop = Passed(), enumerate(requests), asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(queue, passed), "127.0.0.1", port))[1]
        for _ in range(concurrency)
    ]
    started = time.perf_counter()
    for each in connections:
        each.next()
    await asyncio.gather(*(each.finished for each in connections))
    passed.total_s = time.perf_counter() - started
    return passed


def post(path: str, media: str, body: bytes) -> bytes:
    """One request as it travels."""
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
