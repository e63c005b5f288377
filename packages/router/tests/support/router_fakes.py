"""A worker that is a real server with a script instead of models, and a router served in this process."""

import argparse
import asyncio
import base64
import hashlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httptools
import msgspec
import uvicorn
from starlette.types import ASGIApp

from router_builders import L4, status
from sie_protocol.codec import PAUSE_S
from sie_protocol.status import HEARTBEAT_S, WorkerStatus
from sie_router.app import RouterApp
from sie_router.data.fast_path import FastPath
from sie_router.data.outcome import Outcome
from sie_router.serve import server_config
from sie_router.settings import Settings

WAIT_S = 60.0  # only against hanging: a busy machine may stand still for seconds
_WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def eventually(claim: Callable[[], bool]) -> None:
    """Wait for an observable condition, with a bound."""
    async with asyncio.timeout(WAIT_S):
        while not claim():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


@dataclass(slots=True)
class Exchange:
    """One request at the worker, and the means to answer it well or badly."""

    connection: "_Connection"
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        self.connection.transport.write(data)

    def reply(self, status_code: int = 200, body: bytes = b"ok", **headers: str) -> None:
        """Send a whole response; underscores in header names become dashes."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.write(f"HTTP/1.1 {status_code} X\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

    def refuse(self, code: str) -> None:
        """Say "not me" the way workers do."""
        self.reply(503, b'{"error":{}}', X_SIE_Error_Code=code, Retry_After="1")

    def cut(self) -> None:
        """Break the connection."""
        self.connection.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


async def obey(exchange: Exchange) -> None:
    """Answer 200 with the request's body."""
    exchange.reply(200, exchange.body or b"ok", content_type="application/msgpack")


def bound(port: int = 0) -> socket.socket:
    """Hold a port of 127.0.0.1 for servers that come and go: meanwhile a stranger's there would be taken for one."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder


@dataclass(slots=True)
class FakeWorker:
    """Listens on a free port of 127.0.0.1, which stays its own until `close`.

    `script` decides each answer; `seen` keeps every request.
    """

    frame: WorkerStatus = field(default_factory=status)
    script: Script = obey
    seen: list[Exchange] = field(default_factory=list)
    connections: set["_Connection"] = field(default_factory=set)
    streams: set["_Connection"] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    server: asyncio.Server | None = None
    port: int = 0
    holder: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where the router finds it."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "FakeWorker":
        """Listen, on the same port as last time."""
        if self.holder is None:
            self.holder = bound(self.port)
            self.port = self.holder.getsockname()[1]
        loop = asyncio.get_running_loop()
        make = partial(_Connection, self)
        self.server = await loop.create_server(make, "127.0.0.1", self.port, reuse_address=True)
        return self

    def tell(self, frame: WorkerStatus) -> None:
        """Send a new status frame to every router."""
        self.frame = frame
        for stream in self.streams:
            stream.send_frame()

    def send_text(self, text: str) -> None:
        """Send a frame of any text."""
        for stream in self.streams:
            stream.send_text(text)

    def stop_listening(self) -> None:
        """Refuse new connections; those that stand, stay."""
        if self.server is not None:
            self.server.close()

    def kill(self) -> None:
        """Die: nobody listens, and every connection breaks."""
        self.stop_listening()
        for connection in (*self.connections, *self.streams):
            connection.transport.abort()

    async def close(self) -> None:
        """Die, and wait for what was running."""
        self.kill()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.holder is not None:
            self.holder.close()
        if self.server is not None:
            await self.server.wait_closed()


class _Connection(asyncio.Protocol):
    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.parser = httptools.HttpRequestParser(self)
        self.transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self.worker.connections.discard(self)
        self.worker.streams.discard(self)

    def data_received(self, data: bytes) -> None:
        if self in self.worker.streams:
            self.transport.close()  # a router never says anything but goodbye
            return
        with suppress(httptools.HttpParserUpgrade):
            self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.exchange = Exchange(self, "", "", [])
        self.body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.exchange.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.exchange.headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        exchange.method, exchange.body = self.parser.get_method().decode(), b"".join(self.body)
        key = exchange.header("sec-websocket-key")
        if key is not None:
            self._upgrade(key)
            return
        self.worker.seen.append(exchange)
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self.worker.tasks.add(task)
        task.add_done_callback(self.worker.tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        await self.worker.script(exchange)

    def _upgrade(self, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _WEBSOCKET_KEY).digest()).decode()  # noqa: S324 - RFC 6455
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self.worker.connections.discard(self)
        self.worker.streams.add(self)
        self.beat()

    def beat(self) -> None:
        if self in self.worker.streams:
            self.send_frame()
            asyncio.get_running_loop().call_later(HEARTBEAT_S, self.beat)

    def send_frame(self) -> None:
        self.send_text(msgspec.json.encode(self.worker.frame).decode())

    def send_text(self, text: str) -> None:
        data = text.encode()
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.transport.write(b"\x81" + size + data)


@dataclass(slots=True)
class Served:
    """A router that listens. `outcomes` keeps what the audit would write."""

    app: RouterApp
    port: int
    outcomes: list[Outcome]
    config: uvicorn.Config

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def healthy(self) -> int:
        """Workers that may be given requests."""
        return sum(worker.is_healthy for worker in self.app.store.snapshot().workers.values())


@asynccontextmanager
async def served(settings: Settings, *, is_draining: bool = False, pause_s: float = PAUSE_S) -> AsyncIterator[Served]:
    """Serve a router in this process, as the command does."""
    outcomes: list[Outcome] = []
    app = RouterApp(settings, outcomes.append)
    async with listening(app.asgi, app.fast_path, is_draining=is_draining, pause_s=pause_s) as server:
        yield Served(app, port_of(server), outcomes, server.config)


@asynccontextmanager
async def listening(
    app: ASGIApp,
    fast_path: FastPath | None = None,
    *,
    is_draining: bool = False,
    pause_s: float = PAUSE_S,
) -> AsyncIterator[uvicorn.Server]:
    """Serve any application as a router is served."""
    config = server_config(app, fast_path, host="127.0.0.1", port=0, loop="none", shutdown_s=5, pause_s=pause_s)
    if is_draining:
        config.headers.append(("connection", "close"))
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or task.done())
    try:
        yield server
    finally:
        server.should_exit = True
        await task


def port_of(server: uvicorn.Server) -> int:
    """Where it listens."""
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def settings(*workers: FakeWorker, **more: Any) -> Settings:
    """Settings of a router of these workers, with one configured group."""
    values: dict[str, Any] = {"groups": (L4,), "retry_after_s": 3, "estimated_wait_s": 9}
    return Settings(workers=tuple(worker.url for worker in workers), **(values | more))


async def _main(port: int, name: str, model: str, status_code: int, delay_s: float) -> None:
    """A worker in a process of its own, which says when its first request has come, and answers all with one status."""
    worker = FakeWorker(status(name, loaded=(model,)), port=port)

    async def answer(exchange: Exchange) -> None:
        if exchange is worker.seen[0]:  # not by their number: several may have come at once
            sys.stdout.write("request\n")
            sys.stdout.flush()
        await asyncio.sleep(delay_s)
        exchange.reply(status_code, name.encode())

    worker.script = answer
    await worker.start()
    sys.stdout.write(f"{worker.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--model", default="BAAI/bge-m3")
    parser.add_argument("--status-code", type=int, default=200)
    parser.add_argument("--delay-s", type=float, default=0.0)
    asyncio.run(_main(**vars(parser.parse_args())))
