"""A worker that computes nothing: a status stream, and the same answer to every request. Run as a process.

python tools/bench/fake_worker.py PORT STATUS_PORT DELAY_S ANSWER_BYTES
"""

import asyncio
import contextlib
import sys
from typing import cast

import httptools
import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from sie_protocol.headers import WORKER_STATUS
from sie_protocol.status import HEARTBEAT_S, ModelStatus, WorkerStatus

MODEL = "BAAI/bge-m3"


def answer(size_bytes: int) -> bytes:
    """A whole response as a worker would send it, with a JSON body of this size."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"x-queue-time: 0.10\r\nx-total-time: 3.00\r\nx-sie-server-version: 0.1.10\r\n\r\n"
    )
    return head % size_bytes + b'"' + b"x" * (size_bytes - 2) + b'"'


class Upstream(asyncio.Protocol):
    """A worker's HTTP side: the same answer to everything, after `delay_s`."""

    def __init__(self, answer: bytes, delay_s: float) -> None:
        self._response = answer
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._response)


async def run_worker(port: int, status_port: int, delay_s: float, size_bytes: int) -> None:
    """Serve HTTP on one port and the status stream on the same one, by peeking at the first bytes."""
    frame = msgspec.json.encode(
        WorkerStatus(
            ready=True,
            name=f"worker-{port}",
            machine_profile="l4",
            loaded_models=(MODEL,),
            models=(ModelStatus(name=MODEL),),
            gpu_count=1,
        )
    ).decode()

    async def status(stream: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            while True:
                await stream.send(frame)
                await asyncio.sleep(HEARTBEAT_S)

    loop = asyncio.get_running_loop()
    async with serve(status, "127.0.0.1", status_port, compression=None):
        server = await loop.create_server(lambda: Splitter(status_port, answer(size_bytes), delay_s), "127.0.0.1", port)
        await server.serve_forever()


class Splitter(asyncio.Protocol):
    """Decides by its first bytes whether a connection is a status stream or a client of the worker."""

    def __init__(self, status_port: int, answer: bytes, delay_s: float) -> None:
        self._status_port = status_port
        self._answer = answer
        self._delay_s = delay_s
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The first bytes came."""
        if self._transport is None:
            return
        if not data.startswith(b"GET " + WORKER_STATUS.encode()):
            upstream = Upstream(self._answer, self._delay_s)
            upstream.connection_made(self._transport)
            self._transport.set_protocol(upstream)
            upstream.data_received(data)
            return
        relay = Relay(self._transport, data)
        self._transport.set_protocol(relay)
        relay.task = asyncio.create_task(connect(relay.back, self._status_port))


async def connect(back: "Back", port: int) -> None:
    """Open the far side of a relay."""
    await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", port)


class Relay(asyncio.Protocol):
    """Copies bytes between the router and the status server."""

    def __init__(self, front: asyncio.Transport, first: bytes) -> None:
        self.back = Back(front, first)
        self.task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """The router said something."""
        self.back.write(data)

    def eof_received(self) -> None:
        """The router is gone."""
        self.back.close()


class Back(asyncio.Protocol):
    """The far side of a relay."""

    def __init__(self, front: asyncio.Transport, first: bytes) -> None:
        self._front = front
        self._first = first
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The status server is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        """The status server said something."""
        self._front.write(data)

    def write(self, data: bytes) -> None:
        """Pass on what the router said."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Nobody listens any more."""
        if self._transport is not None:
            self._transport.close()


if __name__ == "__main__":
    _port, _status_port, _delay_s, _size = sys.argv[1:]
    uvloop.run(run_worker(int(_port), int(_status_port), float(_delay_s), int(_size)))
