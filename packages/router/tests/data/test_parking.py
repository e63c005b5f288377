import asyncio
from collections.abc import Awaitable, Callable

import httpx
import msgspec
import pytest

from router_builders import L4, MODEL, status
from router_fakes import Exchange, FakeWorker, Served, eventually, served, settings
from sie_protocol.status import ModelStatus
from sie_router.core.demand import unserved, wanted
from sie_router.core.slow_start import START, release_at_s
from sie_router.data.parking import COMPAT_WAIT_S

MakeWorker = Callable[..., Awaitable[FakeWorker]]
PATH = f"/v1/encode/{MODEL}"
WARM = status("w", loaded=[MODEL])
NOBODY = status("w", ready=False)


async def heard(router: Served) -> None:
    """Wait until the router knows what its workers say: before that, it refuses everybody."""
    await eventually(lambda: not router.app.store.snapshot().unheard)


async def ask(router: Served, wait: str | None = "30", path: str = PATH, body: bytes = b"{}") -> httpx.Response:
    async with httpx.AsyncClient(base_url=router.url, timeout=20) as client:
        headers = {} if wait is None else {"prefer": f"wait={wait}"}
        return await client.post(path, content=body, headers=headers)


def demand(router: Served, at: float = 0.0) -> int:
    return wanted(router.app.store.snapshot(), at)[L4, "default"]


def parked(router: Served) -> int:
    return sum(len(queue.waiters) for queue in router.app.parked._queues.values())


async def test_a_request_waits_for_a_worker_and_demand_is_visible_meanwhile(make_worker: MakeWorker) -> None:
    worker = await make_worker(NOBODY)
    async with served(settings(worker)) as router:
        await heard(router)
        asked = asyncio.create_task(ask(router))
        named = asyncio.create_task(ask(router, path="/v1/embeddings", body=b'{"model": "BAAI/bge-m3"}'))
        await eventually(lambda: parked(router) == 2)
        assert demand(router, asyncio.get_running_loop().time() + 30) == 1
        worker.tell(WARM)
        answers = await asked, await named
        assert [answer.status_code for answer in answers] == [200, 200]
        assert {answer.headers["preference-applied"] for answer in answers} == {"wait=30"}
        assert all(outcome.parked_s > 0 and not outcome.provisioning for outcome in router.outcomes)
        assert router.app.parked.ended["served"] == 2
        assert (router.app.parked.requests, router.app.parked.held_bytes) == (0, 0)


async def test_a_client_of_another_service_is_parked_unasked_for_less_time_than_proxies_allow(
    make_worker: MakeWorker,
) -> None:
    worker = await make_worker(NOBODY)
    async with served(settings(worker)) as router:
        await heard(router)
        asked = asyncio.create_task(ask(router, None, "/v1/embeddings", b'{"model": "BAAI/bge-m3"}'))
        await eventually(lambda: parked(router) == 1)
        declined = await ask(router, "0", "/v1/embeddings", b'{"model": "BAAI/bge-m3"}')
        assert (declined.status_code, "preference-applied" in declined.headers) == (503, False)
        worker.tell(WARM)
        answer = await asked
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, f"wait={COMPAT_WAIT_S}")
    assert COMPAT_WAIT_S < 60  # what nginx and most load balancers allow


async def test_who_did_not_ask_to_wait_is_told_at_once_and_offered_to(make_worker: MakeWorker) -> None:
    worker = await make_worker(NOBODY)
    async with served(settings(worker)) as router:
        await heard(router)
        for wait in (None, "0", "soon"):
            answer = await ask(router, wait)
            assert (answer.status_code, "preference-applied" in answer.headers) == (202, False)
            assert answer.headers["x-sie-wait"] == "120"
        worker.tell(WARM)
        await eventually(lambda: router.healthy() == 1)
        assert "x-sie-wait" not in (await ask(router, None)).headers


async def test_once_a_start_was_seen_clients_are_told_how_long_the_next_may_take(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    worker.kill()
    async with served(settings(worker, retry_after_s=120)) as router:
        await heard(router)
        first = await ask(router, None)
        assert (first.headers["retry-after"], first.json()["estimated_wait_s"]) == ("120", 9)
        await worker.start()
        await eventually(lambda: router.healthy() == 1)
        worker.tell(NOBODY)
        await eventually(lambda: router.healthy() == 0)
        second = await ask(router, None)
    assert second.status_code == 202
    assert 1 <= int(second.headers["retry-after"]) < 20
    assert 1 <= second.json()["estimated_wait_s"] < 20


async def test_who_comes_while_a_worker_gets_ready_is_told_to_come_back_in_seconds(make_worker: MakeWorker) -> None:
    worker = await make_worker(NOBODY)
    async with served(settings(worker, retry_after_s=120)) as router:
        await heard(router)
        await eventually(lambda: len(router.app.store.snapshot().workers) == 1)
        assert 2 <= int((await ask(router, None)).headers["retry-after"]) <= 5
        named = await ask(router, "0", "/v1/embeddings", b'{"model": "BAAI/bge-m3"}')
        assert 2 <= int(named.headers["retry-after"]) <= 5


async def test_a_model_that_loads_is_offered_to_be_waited_for(make_worker: MakeWorker) -> None:
    async def loading(exchange: Exchange) -> None:
        exchange.refuse("MODEL_LOADING")

    worker = await make_worker(status("w"), loading)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await ask(router, None)
    assert (answer.status_code, answer.headers["x-sie-wait"]) == (503, "120")


async def test_nobody_is_offered_what_there_is_not() -> None:
    async with served(settings(max_wait_s=0)) as router:
        assert "x-sie-wait" not in (await ask(router, None)).headers
    async with served(settings(max_waiting_bytes=100)) as router:
        assert "x-sie-wait" not in (await ask(router, None, body=b"x" * 101)).headers
        router.app.drain()
        assert "x-sie-wait" not in (await ask(router, None)).headers


async def test_a_client_that_was_told_and_then_waits_counts_as_one() -> None:
    async with served(settings(max_wait_s=1)) as router, httpx.AsyncClient(base_url=router.url, timeout=20) as client:

        async def told_and_kept() -> None:
            await client.post(PATH, content=b"{}")
            for attempt in ("2", "3"):
                kept = {"x-sie-wait": "1", "x-sie-attempt": attempt}
                assert (await client.post(PATH, content=b"{}", headers=kept)).status_code == 202

        await asyncio.gather(*(told_and_kept() for _ in range(5)))
        now = asyncio.get_running_loop().time()
        assert unserved(router.app.store.snapshot(), now) == {L4: 5}


async def test_when_the_time_is_over_the_answer_is_the_usual_one() -> None:
    async with served(settings(max_wait_s=1)) as router:
        answer = await ask(router, "30")
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
        assert answer.headers["x-sie-wait"] == "1"  # its own place is free again
        assert demand(router, asyncio.get_running_loop().time()) == 1
        assert router.app.parked.ended["expired"] == 1
    assert router.outcomes[0].parked_s >= 1


async def test_the_clients_own_deadline_ends_the_wait() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url, timeout=20) as client:
        answer = await client.post(PATH, headers={"x-sie-wait": "30", "x-sie-timeout": "0.2"})
    assert answer.status_code == 202


async def test_a_request_waits_until_its_model_is_loaded(make_worker: MakeWorker) -> None:
    async def loading_at_first(exchange: Exchange) -> None:
        if MODEL in worker.frame.loaded_models:
            exchange.reply()
        else:
            exchange.refuse("MODEL_LOADING")
            worker.tell(status("w", loading=[MODEL]))

    worker = await make_worker(status("w"), loading_at_first)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        asked = asyncio.create_task(ask(router))
        await eventually(lambda: parked(router) == 1)
        worker.tell(status("other", loading=[MODEL]))
        assert len(worker.seen) == 1
        worker.tell(WARM)
        assert (await asked).status_code == 200
    assert len(worker.seen) == 2


async def test_a_request_waits_until_its_lora_is_loaded_on_top_of_the_model(make_worker: MakeWorker) -> None:
    name = f"{MODEL}:law"

    async def loading_at_first(exchange: Exchange) -> None:
        if name in worker.frame.loaded_models:
            exchange.reply()
        else:
            exchange.refuse("LORA_LOADING")
            worker.tell(status("w", loaded=[MODEL], loading=[name]))

    worker = await make_worker(WARM, loading_at_first)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        asked = asyncio.create_task(ask(router, path=f"/v1/encode/{name}"))
        await eventually(lambda: parked(router) == 1)
        worker.tell(status("w", loaded=[MODEL, name]))
        assert (await asked).status_code == 200
    assert len(worker.seen) == 2


async def test_a_load_that_failed_is_heard_of_at_once(make_worker: MakeWorker) -> None:
    async def fail(exchange: Exchange) -> None:
        if len(worker.seen) == 1:
            exchange.refuse("MODEL_LOADING")
            worker.tell(status("w", loading=[MODEL]))
        else:
            exchange.reply(502, X_SIE_Error_Code="MODEL_LOAD_FAILED")

    worker = await make_worker(status("w"), fail)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        asked = asyncio.create_task(ask(router))
        await eventually(lambda: parked(router) == 1)
        worker.tell(msgspec.structs.replace(status("w"), models=(ModelStatus(name=MODEL, state="failed"),)))
        assert (await asked).status_code == 502


async def test_a_herd_is_let_go_on_a_ramp(make_worker: MakeWorker) -> None:
    async def keep(exchange: Exchange) -> None:
        started.append(asyncio.get_running_loop().time())
        if len(started) == 20:
            everybody.set()
        await everybody.wait()
        exchange.reply()

    started: list[float] = []
    everybody = asyncio.Event()
    worker = await make_worker(NOBODY, keep)
    async with served(settings(worker)) as router:
        await heard(router)
        herd = [asyncio.create_task(ask(router)) for _ in range(20)]
        await eventually(lambda: parked(router) == 20)
        told = asyncio.get_running_loop().time()
        worker.tell(WARM)
        assert [(await each).status_code for each in herd] == [200] * 20
    assert all(at - told >= release_at_s(number, 1) for number, at in enumerate(started))
    assert release_at_s(START - 1, 1) == 0 < release_at_s(START, 1)


async def test_a_client_that_leaves_waits_no_more() -> None:
    async with served(settings()) as router:
        asked = asyncio.create_task(ask(router))
        await eventually(lambda: parked(router) == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await eventually(lambda: bool(router.outcomes))
        assert router.outcomes[0].status == 499
        assert (parked(router), router.app.parked.requests, router.app.parked.ended["gone"]) == (0, 0, 1)


async def test_the_room_is_bounded_in_requests_and_bytes() -> None:
    async with served(settings(max_waiting=1, max_waiting_bytes=100)) as router:
        assert (await ask(router, body=b"x" * 101)).status_code == 202
        asked = asyncio.create_task(ask(router))
        await eventually(lambda: parked(router) == 1)
        assert (await ask(router)).status_code == 202
        assert router.app.parked.ended["full"] == 2
        router.app.drain()
        assert (await asked).status_code == 202


async def test_when_the_worker_leaves_again_the_demand_is_noted_again(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(_: Exchange) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("sie_router.core.slow_start.DOUBLES_S", 1000.0)  # the first few go, and then nobody for long
    worker = await make_worker(NOBODY, busy)
    async with served(settings(worker)) as router:
        await heard(router)
        herd = [asyncio.create_task(ask(router)) for _ in range(3 * START)]
        await eventually(lambda: parked(router) == 3 * START)
        worker.tell(WARM)
        await eventually(lambda: parked(router) < 3 * START)
        worker.tell(NOBODY)
        now = asyncio.get_running_loop().time
        await eventually(lambda: demand(router, now()) == 1 and parked(router) > 0)
        for each in herd:
            each.cancel()
        await asyncio.gather(*herd, return_exceptions=True)
