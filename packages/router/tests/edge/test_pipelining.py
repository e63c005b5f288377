"""Clients that send requests before they have the answers to earlier ones, or do worse. All over real sockets."""

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from router_builders import MODEL, status
from router_fakes import WAIT_S, Exchange, FakeWorker, Served, eventually, obey, served, settings
from sie_protocol.codec import MAX_HEAD_BYTES
from sie_router.data.fast_path import MAX_BODY_BYTES
from sie_router.edge.protocol import MAX_WAITING

MakeWorker = Callable[..., Awaitable[FakeWorker]]
WARM = status("w", loaded=[MODEL])
PATH = f"/v1/encode/{MODEL}"
GARBAGE = b"\x00 is no request\r\n\r\n"
HEAD_AND_BODY = rb"HTTP/1\.1 (\d+)[^\r]*\r\n(?:[^\r]+\r\n)*?content-length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n"


def request(body: bytes, more: str = "") -> bytes:
    return f"POST {PATH} HTTP/1.1\r\nhost: x\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n%b\r\n0\r\nx-trailer: t\r\n\r\n" % (len(body), body)


def answers(said: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer, all of which announce a length; nothing may be left over."""
    found: list[tuple[int, bytes]] = []
    while said:
        head = re.match(HEAD_AND_BODY, said)
        assert head is not None, said[:300]
        end = head.end() + int(head[2])
        found.append((int(head[1]), said[head.end() : end]))
        said = said[end:]
    return found


def router_is_closed(router: Served) -> bool:
    """True once it listens no more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", router.port)) != 0


@asynccontextmanager
async def warm(worker: FakeWorker) -> AsyncIterator[Served]:
    """A router that keeps connections to the worker, so that whole short requests go by the fast path."""
    script, worker.script = worker.script, obey
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        assert answers(await said(router, [request(b"first", "connection: close\r\n")])) == [(200, b"first")]
        await eventually(lambda: len(router.outcomes) == 1)
        router.outcomes.clear()
        worker.seen.clear()
        worker.script = script
        yield router


async def said(router: Served, pieces: list[bytes]) -> bytes:
    """All that the router says until it closes the connection; it is sent piece by piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with asyncio.timeout(WAIT_S):
        sending = asyncio.create_task(send())
        answer = await reader.read()
        await sending
    writer.close()
    return answer


@pytest.mark.parametrize("seed", range(12))
async def test_every_request_is_answered_in_its_turn_wherever_the_stream_is_cut(
    make_worker: MakeWorker, seed: int
) -> None:
    draw = random.Random(seed)

    async def at_its_own_pace(exchange: Exchange) -> None:
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)
        if len(worker.seen) == 1 and len(exchange.body) <= MAX_BODY_BYTES:
            exchange.cut()  # the router asks again
        else:
            await obey(exchange)

    def one(number: int) -> bytes:
        body = b"%d " % number + b"b" * draw.choice([0, 1, 900, MAX_BODY_BYTES, 3 * MAX_BODY_BYTES])
        bodies.append(body)
        return draw.choice([request, chunked])(body)

    bodies: list[bytes] = []
    stream = b"".join(one(number) for number in range(8)) + request(b"last", "connection: close\r\n") + b"more"
    cuts = sorted(draw.sample(range(len(stream)), draw.randrange(12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    worker = await make_worker(WARM, at_its_own_pace)
    async with warm(worker) as router:
        found = answers(await said(router, pieces))
        assert [body for _, body in found] == [*bodies, b"last"]
        await eventually(lambda: len(router.outcomes) == len(bodies) + 1)


async def test_what_came_before_garbage_is_answered_and_then_the_garbage(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        found = answers(await said(router, [request(b"1") + request(b"2") + GARBAGE + request(b"3")]))
        assert [code for code, _ in found] == [200, 200, 400]
        assert [body for _, body in found[:2]] == [b"1", b"2"]


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_body_that_is_none_costs_those_before_it_nothing(make_worker: MakeWorker, before: int) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        broken = chunked(b"x").replace(b"\r\n\r\n1", b"\r\n\r\nno size", 1)
        answer = await said(router, [b"".join(request(b"%d" % number) for number in range(before)) + broken])
        good = [(200, b"%d" % number) for number in range(before)]
        if before:
            assert answers(answer)[:-1] == good
            assert answers(answer)[-1][0] == 400
        else:
            assert answer == b""  # the application had it already
            assert [outcome.status for outcome in router.outcomes] == [499]
        await eventually(lambda: not router.app.inflight.workers)


@pytest.mark.parametrize("by_header", [False, True])
async def test_a_router_that_ends_answers_all_it_has_accepted(make_worker: MakeWorker, *, by_header: bool) -> None:
    """Whether it tells its clients to leave first, or closes at once."""

    async def wait(exchange: Exchange) -> None:
        await release.wait()
        await obey(exchange)

    release = asyncio.Event()
    worker = await make_worker(WARM, wait)
    served_now = served(settings(worker), is_draining=by_header)
    router = await served_now.__aenter__()
    await eventually(lambda: router.healthy() == 1)
    # In one piece: once the first is at the worker, the others are read as well.
    asking = asyncio.create_task(said(router, [b"".join(request(b"%d" % number) for number in range(5))]))
    await eventually(lambda: len(worker.seen) == 1)
    ending = asyncio.create_task(served_now.__aexit__(None, None, None))
    if not by_header:
        await eventually(lambda: router_is_closed(router))
    release.set()
    answer = await asking
    await ending
    assert answers(answer) == [(200, b"%d" % number) for number in range(5)]
    assert answer.count(b"connection: close\r\n") == 1
    assert answer.index(b"connection: close\r\n") > answer.index(b"\r\n\r\n3")


async def test_more_than_a_connection_may_ask_ahead_is_not_accepted(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        answer = await said(router, [b"".join(request(b"%d" % number) for number in range(3 * MAX_WAITING))])
        found = answers(answer)
        assert found == [(200, b"%d" % number) for number in range(len(found))]
        assert MAX_WAITING < len(found) <= MAX_WAITING + 2
        assert answer.count(b"connection: close\r\n") == 1
        assert len(worker.seen) == len(found)


async def test_a_client_that_does_not_read_is_not_read_from(make_worker: MakeWorker) -> None:
    asked = 60

    async def at_length(exchange: Exchange) -> None:
        exchange.reply(200, b"x" * (1 << 20), number=str(len(worker.seen)))

    worker = await make_worker(WARM, at_length)
    async with warm(worker) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1 << 16)
        for _ in range(asked):
            writer.write(request(b"{}"))
            await asyncio.sleep(0.0005)
        seen, turns = -1, 0
        while turns < 100:  # of the loop without another one: not a span of time, in which this machine may stand still
            turns = turns + 1 if seen == len(worker.seen) else 0
            seen = len(worker.seen)
            await asyncio.sleep(0.001)
        assert 0 < seen < asked / 2  # what fits into the buffers of both sockets
        read = 0
        async with asyncio.timeout(WAIT_S):
            while read < asked << 20:
                read += len(await reader.read(1 << 20))
        await eventually(lambda: len(router.outcomes) == asked)
        writer.close()


async def test_a_client_that_leaves_gives_up_the_request_that_is_served_and_those_that_wait(
    make_worker: MakeWorker,
) -> None:
    async def cut_then_hang(exchange: Exchange) -> None:
        if len(worker.seen) == 1:
            exchange.cut()
        else:
            await asyncio.Event().wait()

    worker = await make_worker(WARM, cut_then_hang)
    async with warm(worker) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(b"1") + request(b"2"))
        await eventually(lambda: len(worker.seen) == 2)
        writer.transport.abort()
        await eventually(lambda: len(router.outcomes) == 1 and not worker.connections)
        assert (router.outcomes[0].status, router.app.inflight.workers) == (499, {})


@pytest.mark.parametrize(
    "half", [b"", b"GET /heal", request(b"half")[:-2], request(b"half")[:-2].replace(b"encode", b"nothing")]
)
async def test_a_client_has_a_limited_time_to_say_what_it_wants(make_worker: MakeWorker, half: bytes) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        router.config.timeout_keep_alive = cast("int", 0.05)  # for the connections that are made from now on
        said_nothing = b""
        with suppress(ConnectionResetError):  # who speaks only when its time is over, as on a busy machine
            said_nothing = await said(router, [half])
        assert said_nothing == b"" or b" 404 " in said_nothing[:16]
        assert not worker.seen


async def test_an_offer_to_upgrade_that_is_not_taken_up_ends_nothing(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    offer = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with warm(worker) as router:
        last = request(b"3", "connection: close\r\n")
        found = answers(await said(router, [request(b"1", offer) + request(b"2", offer), last]))
        assert found == [(200, b"1"), (200, b"2"), (200, b"3")]


@pytest.mark.parametrize("part", [b"GET /%s HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: %s\r\n"])
async def test_a_head_without_end_is_refused(make_worker: MakeWorker, part: bytes) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        endless = [request(b"1"), part.partition(b"%s")[0], *[b"x" * 4_000] * (1 + MAX_HEAD_BYTES // 4_000)]
        found = answers(await said(router, endless))
        assert [code for code, _ in found] == [200, 400]


@pytest.mark.parametrize("part", [b"0\r\nx: ", b"0\r\n%s", b"1;x=", b"1\r\nx\r\n0\r\nx: "])
async def test_what_has_no_end_around_a_body_is_given_up(make_worker: MakeWorker, part: bytes) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        head = b"POST %b HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode()
        start, is_lines, _ = part.partition(b"%s")
        some = b"x-trailer: t\r\n" * 300 if is_lines else b"x" * 4_000
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(head + start)
        sent = 0
        while sent < 50 * MAX_HEAD_BYTES and not writer.is_closing():
            writer.write(some)
            with suppress(ConnectionError):
                await writer.drain()
            sent += len(some)
            await asyncio.sleep(0)
        is_given_up = writer.is_closing()
        writer.transport.abort()
        assert is_given_up


async def test_a_head_is_not_longer_for_what_came_before_it(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(b"x" * (4 << 20)))  # the system learns to deliver more than a head may have at a time
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4 << 20)
        long, second = b"x" * (2 * MAX_HEAD_BYTES), request(b"2", "connection: close\r\n")
        writer.write(request(long) + second[:20])
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(long)) == long, head
        writer.write(second[20:])
        assert answers(await reader.read()) == [(200, b"2")]
        writer.close()
