import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from router_builders import MODEL, fleet, status
from router_fakes import Exchange, FakeWorker, Served, eventually, obey, served, settings
from sie_protocol.status import STALE_AFTER_S
from sie_router.core.events import Event, Tick, WorkerGone, WorkerSeen, apply
from sie_router.data.body import REPLAY_BYTES
from sie_router.data.connection import ConnectionCut
from sie_router.data.stale import StaleWorkers
from sie_router.data.upstream import Upstream

MakeWorker = Callable[..., Awaitable[FakeWorker]]
PATH = f"/v1/encode/{MODEL}"
WARM = status("a", loaded=[MODEL])


async def hang(_: Exchange) -> None:
    await asyncio.Event().wait()


async def hang_in_the_middle(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await asyncio.Event().wait()


async def stuck(router: Served, worker: FakeWorker, request: Awaitable[httpx.Response]) -> httpx.Response:
    """The answer to a request whose worker is given up once it has it."""
    answer = asyncio.ensure_future(request)
    await eventually(lambda: len(worker.seen) == 1)
    assert router.app.upstream.cut(worker.url, "silence") == 1
    return await answer


@pytest.mark.parametrize("kept", [True, False], ids=["fast path", "long way"])
async def test_what_a_silent_worker_has_not_answered_goes_to_another(make_worker: MakeWorker, kept: bool) -> None:
    silent, other = await make_worker(WARM, hang), await make_worker(status("b"))
    async with served(settings(silent, other)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 2)
        if kept:
            silent.script = obey
            assert (await client.post(PATH)).headers["x-sie-worker"] == "a"
            silent.script = hang
            silent.seen.clear()
        answer = await stuck(router, silent, client.post(PATH, content=b"again"))
        assert (answer.status_code, answer.content, answer.headers["x-sie-worker"]) == (200, b"again", "b")
        await eventually(lambda: not router.app.inflight.workers and not silent.connections)
        assert len(silent.seen) == 1  # a new connection to it would have hung as well
        assert router.outcomes[-1].retries == 1


async def test_what_cannot_be_sent_again_ends_with_a_code(make_worker: MakeWorker) -> None:
    silent, other = await make_worker(WARM, hang), await make_worker(status("b"))
    async with served(settings(silent, other)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 2)
        answer = await stuck(router, silent, client.post(PATH, content=b"x" * (REPLAY_BYTES + (1 << 20))))
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "WORKER_UNAVAILABLE")
    assert other.seen == []


async def test_what_a_silent_worker_has_answered_in_part_is_cut(make_worker: MakeWorker) -> None:
    silent = await make_worker(WARM, hang_in_the_middle)
    async with served(settings(silent)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the stream is the claim
            async with client.stream("POST", PATH) as answer:
                async for piece in answer.aiter_raw():
                    assert piece == b"half"  # the router has it: before that, it would ask again
                    assert router.app.upstream.cut(silent.url, "silence") == 1
        await eventually(lambda: bool(router.outcomes))
        assert router.outcomes[0].status == 502


async def test_with_its_retries_spent_a_router_gives_a_code_instead(make_worker: MakeWorker) -> None:
    silent, other = await make_worker(WARM, hang), await make_worker(status("b"))
    async with served(settings(silent, other)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 2)
        router.app.retries._tokens = -1000.0  # one more is earned by each second, and this machine may be slow
        answer = await stuck(router, silent, client.post(PATH))
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "WORKER_UNAVAILABLE")


async def test_a_connection_that_is_being_made_to_a_silent_worker_is_not_used(make_worker: MakeWorker) -> None:
    silent = await make_worker(WARM, hang)
    upstream = Upstream(connect_timeout_s=1, max_per_worker=1, clock=lambda: 0.0)
    request = asyncio.create_task(upstream.send(silent.url, b"", b"", 60))
    await asyncio.sleep(0)
    assert upstream.cut(silent.url, "silence") == 1
    with pytest.raises(Exception, match="closed"):
        await request
    await upstream.close()


@pytest.mark.parametrize("event", [Tick(), None], ids=["silent", "dropped by discovery"])
async def test_a_worker_is_given_up_when_nothing_was_heard_of_it_for_too_long(
    make_worker: MakeWorker, event: Event | None
) -> None:
    worker = await make_worker(WARM, hang)
    upstream = Upstream(connect_timeout_s=1, max_per_worker=1, clock=lambda: 0.0)
    state, now = fleet(WorkerSeen(worker.url, WARM)), 0.0
    stale = StaleWorkers(lambda: state, upstream, lambda: now)
    head = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
    request = asyncio.create_task(upstream.send(worker.url, head, b"", 60))
    await eventually(lambda: len(worker.seen) == 1)
    for now in (0.0, STALE_AFTER_S, STALE_AFTER_S + 1):
        state = apply(state, event or WorkerGone(worker.url), now)
        stale.look()
        assert upstream.open_connections() == 1
        await asyncio.sleep(0)
        assert request.done() == (now > STALE_AFTER_S)
    with pytest.raises(ConnectionCut, match="nothing was heard"):
        await request
    await upstream.close()
