import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from sie_protocol.codec import MAX_HEAD_BYTES
from sie_server.bounded_http import BoundedHttp

HEAD = b"POST / HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = 50 * MAX_HEAD_BYTES


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Impatient(BoundedHttp):
    head_s = 0.1


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(
    kind: type[BoundedHttp] = BoundedHttp,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(echo, host="127.0.0.1", port=0, http=kind, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    await asyncio.to_thread(config.load)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    [listening] = server.servers[0].sockets
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        server.force_exit = True
        await server.shutdown()


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nhost: ",
        b"GET / HTTP/1.1\r\n%s",
        HEAD + b"0\r\nx: ",
        HEAD + b"0\r\n%s",
        HEAD + b"1;x=",
        HEAD + b"1\r\nx\r\n0\r\nx: ",
    ],
)
async def test_what_has_no_end_around_a_body_is_given_up(start: bytes) -> None:
    begin, is_lines, _ = start.partition(b"%s")
    some = b"x-trailer: t\r\n" * 300 if is_lines else b"x" * 4_000
    async with connected() as (_, writer):
        writer.write(begin)
        sent = 0
        while sent < ENDLESS and not writer.is_closing():
            writer.write(some)
            with suppress(ConnectionError):
                await writer.drain()
            sent += len(some)
            await asyncio.sleep(0)
        assert writer.is_closing()


async def test_a_head_that_is_too_long_is_told_so() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"longer than 65536 bytes" in answer


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    async with connected(Impatient) as (reader, writer):
        writer.write(begun)
        assert await reader.read() == b""


async def test_what_is_around_a_body_is_counted_anew_for_each_piece_and_each_request() -> None:
    async with connected() as (reader, writer):
        for _ in range(3):
            chunk = b"%x\r\n%b\r\n" % (5_000, b"x" * 5_000)
            writer.write(HEAD + chunk * 100 + b"0\r\nx: trailer\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(6) == b"500000"
