import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from msgspec.structs import replace

from router_builders import MODEL, status
from router_fakes import WAIT_S, Exchange, FakeWorker, Script, Served, eventually, obey, served, settings
from sie_router.data.fast_path import MAX_BODY_BYTES
from sie_router.data.outcome import Outcome

MakeWorker = Callable[..., Awaitable[FakeWorker]]
PATH = f"/v1/encode/{MODEL}"
WARM = status("w", loaded=[MODEL])


def tasks_of_requests() -> int:
    return sum("Exchange.run" in repr(task.get_coro()) for task in asyncio.all_tasks())


@asynccontextmanager
async def warm(worker: FakeWorker, **more: object) -> AsyncIterator[Served]:
    """A router that keeps a connection to the worker, because one request has come and gone."""
    script, worker.script = worker.script, obey
    async with served(settings(worker, **more)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        assert (await client.post(PATH, content=b"first")).status_code == 200
        await eventually(lambda: len(router.outcomes) == 1)
        router.outcomes.clear()
        worker.seen.clear()
        worker.script = script
        yield router


async def connect(router: Served, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(request)
    return reader, writer


def request(body: bytes = b"{}", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (PATH.encode(), size, body)


async def test_a_whole_request_for_a_kept_connection_needs_no_task(make_worker: MakeWorker) -> None:
    async def wait(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply(200, b"done", connection="keep-alive")

    release = asyncio.Event()
    worker = await make_worker(WARM, wait)
    async with warm(worker) as router:
        reader, writer = await connect(router, request())
        await eventually(lambda: len(worker.seen) == 1)
        assert (tasks_of_requests(), router.app.inflight.workers) == (0, {worker.url: 1})
        release.set()
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        assert (len(router.outcomes), router.app.inflight.workers) == (1, {})
        writer.close()


async def test_head_and_body_may_come_apart(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        whole = request(b"some body")
        reader, writer = await connect(router, b"")
        for cut in (whole[:10], whole[10:-4], whole[-4:]):
            writer.write(cut)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"some body")).startswith(b"HTTP/1.1 200")
        assert router.outcomes[0].body_bytes == len(b"some body")
        writer.close()


async def hang(_: Exchange) -> None:
    await asyncio.Event().wait()


async def answer_in_part(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    exchange.cut()


async def answer_in_chunks(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n")


async def answer_at_length(exchange: Exchange) -> None:
    exchange.reply(200, b"x" * (2 << 20))


async def answer_and_close(exchange: Exchange) -> None:
    exchange.reply(200, b"bye", connection="close")


async def answer_with_nothing(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def cut(exchange: Exchange) -> None:
    exchange.cut()


def refuses(code: str) -> Script:
    async def refuse(exchange: Exchange) -> None:
        exchange.refuse(code)

    return refuse


def replies(code: int) -> Script:
    async def reply(exchange: Exchange) -> None:
        exchange.reply(code, b"words")

    return reply


BEHAVIOURS = [
    obey, hang, cut, answer_in_part, answer_in_chunks, answer_at_length, answer_and_close, answer_with_nothing,
    refuses("MODEL_LOADING"), refuses("LORA_LOADING"), refuses("QUEUE_FULL"), refuses("SHUTTING_DOWN"), replies(404),
    replies(429), replies(500), replies(502),
]  # fmt: skip


async def seen_from_outside(worker: FakeWorker, *, is_fast: bool) -> tuple[object, ...]:
    request_timeout_s = 1.0 if worker.script is hang else WAIT_S  # only who hangs has to be given up
    async with warm(worker, request_timeout_s=request_timeout_s) as router:
        # A client that wants to be told to go on is not served by the fast path.
        more = b"x-request-id: r\r\n" + (b"" if is_fast else b"expect: 100-continue\r\n")
        reader, writer = await connect(router, request().replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n", 1))
        await eventually(lambda: bool(router.outcomes))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        said = (await reader.read()).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        said = re.sub(rb"try again in \d s", b"try again", said)  # drawn at random, as the header is
        writer.close()
        lines = [line for line in said.split(b"\r\n") if not line.lower().startswith((b"date:", b"retry-after:"))]
        return lines, plain(router.outcomes), len(worker.seen)


def plain(outcomes: list[Outcome]) -> list[Outcome]:
    return [replace(outcome, latency_s=0.0) for outcome in outcomes]


@pytest.mark.parametrize("script", BEHAVIOURS)
async def test_whatever_a_worker_does_express_and_the_long_way_look_alike(
    make_worker: MakeWorker, script: Script
) -> None:
    worker = await make_worker(WARM, script)
    fast_path = await seen_from_outside(worker, is_fast=True)
    worker.script = script
    assert fast_path == await seen_from_outside(worker, is_fast=False)


async def test_a_client_that_leaves_gives_its_worker_up(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM, hang)
    async with warm(worker) as router:
        _, writer = await connect(router, request())
        await eventually(lambda: len(worker.seen) == 1)
        writer.transport.abort()
        await eventually(lambda: bool(router.outcomes) and not worker.connections)
        assert (router.outcomes[0].status, router.app.inflight.workers) == (499, {})
        writer.close()


async def test_a_client_that_leaves_before_its_body_is_whole_is_recorded(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        _, writer = await connect(router, request(b"half", length=8))
        await writer.drain()
        writer.close()
        await eventually(lambda: bool(router.outcomes))
        assert (router.outcomes[0].status, worker.seen) == (499, [])


async def test_a_request_that_is_half_there_is_finished_before_the_router_ends(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with warm(worker) as router:
        reader, writer = await connect(router, request(b"half", length=8))
        await writer.drain()

        answer = asyncio.create_task(the_rest(router, reader, writer))
    assert b"halfrest" in await answer
    writer.close()


async def the_rest(router: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What a client hears that sends the rest of its body once the router has begun to end."""
    with suppress(OSError):
        while True:
            _, other = await asyncio.open_connection("127.0.0.1", router.port)
            other.close()
    writer.write(b"rest")
    return await reader.read()


async def test_what_follows_in_the_pipeline_is_answered_in_order(make_worker: MakeWorker) -> None:
    async def one_failure(exchange: Exchange) -> None:
        await (cut if len(worker.seen) == 1 else obey)(exchange)

    worker = await make_worker(WARM, one_failure)
    async with warm(worker) as router:
        reader, writer = await connect(router, b"".join(request(b"body %d" % number) for number in range(4)))
        answers = await reader.readuntil(b"body 3")
        places = [answers.index(b"body %d" % number) for number in range(4)]
        assert places == sorted(places)
        assert answers.count(b"HTTP/1.1 200") == 4
        writer.close()


@pytest.mark.parametrize("size", [0, MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
async def test_any_length_passes_unchanged(make_worker: MakeWorker, size: int) -> None:
    body = b"b" * size
    worker = await make_worker(WARM)
    async with warm(worker) as router, httpx.AsyncClient(base_url=router.url) as client:
        for _ in range(2):
            assert (await client.post(PATH, content=body)).content == (body or b"ok")
        await eventually(lambda: len(router.outcomes) == 2)
        assert [outcome.body_bytes for outcome in router.outcomes] == [size, size]


async def test_a_full_router_refuses_and_counts_nothing_twice(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM, hang)
    async with warm(worker, max_concurrency=1) as router, httpx.AsyncClient(base_url=router.url) as client:
        _, writer = await connect(router, request())
        await eventually(lambda: len(worker.seen) == 1)
        refused = await client.post(PATH, content=b"{}")
        assert (refused.status_code, refused.headers["x-sie-error-code"]) == (503, "QUEUE_FULL")
        worker.script = obey
        writer.transport.abort()
        await eventually(lambda: not router.app.inflight.workers)
        for _ in range(3):
            assert (await client.post(PATH, content=b"{}")).status_code == 200
        writer.close()
