"""Clients that stop in the middle hold nothing for long: no slot, no worker's connection, no group above zero."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from router_builders import MODEL, status
from router_fakes import WAIT_S, Exchange, FakeWorker, Served, eventually, served, settings
from sie_router.data.body import REPLAY_BYTES

MakeWorker = Callable[..., Awaitable[FakeWorker]]
WARM = status("w", loaded=[MODEL])
ENCODE = f"/v1/encode/{MODEL}"
STALLED = [
    (ENCODE, "content-length: 100000\r\n", b"ab"),
    (ENCODE, "transfer-encoding: chunked\r\n", b"2\r\nab\r\n"),
    (ENCODE, "expect: 100-continue\r\ncontent-length: 10\r\n", b""),
    (ENCODE, f"content-length: {REPLAY_BYTES + 1}\r\n", b"x" * REPLAY_BYTES),  # a part of it went to the worker
    ("/v1/embeddings", "content-length: 100000\r\n", b"{"),
]


async def answer(router: Served, path: str, headers: str, body: bytes) -> bytes:
    """What comes of a request that stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode() + body)
    async with asyncio.timeout(WAIT_S):
        said = await reader.readuntil(b"}")
    writer.close()
    await writer.wait_closed()
    return said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize(("path", "headers", "body"), STALLED)
async def test_a_body_that_stops_is_refused_and_leaves_its_place(
    make_worker: MakeWorker, path: str, headers: str, body: bytes
) -> None:
    worker = await make_worker(WARM)
    pause_s = 0.1 if len(body) < REPLAY_BYTES else 3.0  # the pieces of a long one must come without a pause
    async with served(settings(worker, max_concurrency=1), pause_s=pause_s) as router:
        await eventually(lambda: router.healthy() == 1)
        said = await answer(router, path, headers, body)
        assert said.startswith(b"HTTP/1.1 400")
        got = len(body.removeprefix(b"2\r\n").rstrip())
        assert f"the body stopped for {pause_s:g} s after {got} bytes".encode() in said
        await eventually(lambda: [each.status for each in router.outcomes] == [400])
        assert (await answer(router, ENCODE, "content-length: 4\r\n", b'{"a}')).startswith(b"HTTP/1.1 200")
        assert router.app.inflight.workers == {}


@pytest.mark.parametrize(("path", "headers", "body"), STALLED)
async def test_the_time_of_a_request_ends_while_its_body_comes(
    make_worker: MakeWorker, path: str, headers: str, body: bytes
) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker, request_timeout_s=0.2)) as router:
        await eventually(lambda: router.healthy() == 1)
        said = await answer(router, path, headers, body)
        assert said.startswith(b"HTTP/1.1 504")
        assert b"bytes of its body had come" in said
        await eventually(lambda: [each.status for each in router.outcomes] == [504])
        assert router.app.health._known == {}, "its client stopped, not the worker"


async def test_routes_of_the_framework_wait_no_longer() -> None:
    async with served(settings(), pause_s=0.1) as router:
        said = await answer(router, "/v1/pools", "content-type: application/json\r\ncontent-length: 10\r\n", b"{")
    assert said.startswith(b"HTTP/1.1 400")


async def test_who_takes_nothing_of_a_long_answer_is_given_up(make_worker: MakeWorker) -> None:
    async def at_length(exchange: Exchange) -> None:
        exchange.reply(200, bytes(40 << 20))

    worker = await make_worker(WARM, at_length)
    async with served(settings(worker), pause_s=0.1) as router:
        await eventually(lambda: router.healthy() == 1)
        with socket.create_connection(("127.0.0.1", router.port)) as client:
            client.sendall(f"POST {ENCODE} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi".encode())
            await eventually(lambda: [each.status for each in router.outcomes] == [499])
        assert router.app.inflight.workers == {}
        await eventually(lambda: not worker.connections)
