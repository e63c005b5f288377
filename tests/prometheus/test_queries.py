"""The queries of an autoscaler, asked of a real Prometheus that scrapes real routers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from prometheus_server import THRESHOLD, Prometheus
from router_builders import MODEL, status
from router_fakes import FakeWorker, Served, eventually, served, settings

TENANT = {"name": "tenant", "gpus": {"l4": 1}, "minimum_worker_count": 1}
ZERO = {"demand": 0.0, "queue_depth": 0.0, "lease": 0.0, "reserved": 0.0, "floor": 0.0, "activity": 0.0}


@pytest.fixture
async def workers() -> AsyncIterator[list[FakeWorker]]:
    made = [await FakeWorker(status(name, ready=False)).start() for name in ("w-0", "w-1")]
    yield made
    for worker in made:
        await worker.close()


async def post(router: Served, pool: str = "") -> int:
    async with httpx.AsyncClient(base_url=router.url) as client:
        return (await client.post(f"/v1/encode/{MODEL}", headers={"x-sie-pool": pool})).status_code


async def reserve(router: Served) -> None:
    async with httpx.AsyncClient(base_url=router.url) as client:
        assert (await client.post("/v1/pools", json=TENANT)).status_code == 201


@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_every_query_gives_the_same_number_with_any_number_of_routers(
    server: Prometheus, workers: list[FakeWorker], tmp_path: Path, replicas: int
) -> None:
    async with AsyncExitStack() as stack:
        terms = settings(*workers, pools_file=tmp_path / "pools.json")
        routers = [await stack.enter_async_context(served(terms)) for _ in range(replicas)]
        server.scrape(router.url for router in routers)
        await server.until(ZERO)
        # At zero: whoever hears of it, demand is one for each pool; requests that wait add up, each once.
        for router in routers:
            assert await post(router) == 202
        await server.until({"demand": 1, "queue_depth": replicas, "reserved": 1})
        await reserve(routers[0])
        await eventually(lambda: all("tenant" in router.app.store.snapshot().pools for router in routers))
        assert await post(routers[-1], "tenant") == 202
        await server.until({"demand": 2, "lease": 1, "reserved": 2, "floor": 1, "queue_depth": replicas + THRESHOLD})
        # Workers come: demand is met. One is reserved, and only what waits for the other one asks for more.
        for depth, worker in zip((3, 4), workers, strict=True):
            worker.tell(status(worker.frame.name, loaded=[MODEL], depth=depth))
        await eventually(lambda: all(router.healthy() == 2 for router in routers))
        await server.until({"demand": 0, "queue_depth": 4 + THRESHOLD, "lease": 1, "reserved": 1, "floor": 1})
        for router in routers:
            assert await post(router, "tenant") == 200
        await server.until({"activity": replicas, "reserved": 1})
        # The other one is in use: it has to stay, beside the reserved one.
        for router in routers:
            assert await post(router) == 200
        await server.until({"activity": 2 * replicas, "reserved": 2})
        # One dies: what it had is not counted any more.
        workers[1].kill()
        await server.until({"queue_depth": THRESHOLD, "lease": 1, "floor": 1})
        # Nobody is scraped: no answer, which is not a zero.
        server.scrape(())
        await server.until(dict.fromkeys(ZERO))


async def test_no_number_changes_while_a_router_is_replaced(
    server: Prometheus, workers: list[FakeWorker], tmp_path: Path
) -> None:
    workers[0].frame = status("w-0", profile="a100", loaded=[MODEL])
    terms = settings(*workers, pools_file=tmp_path / "pools.json")
    steady = {"demand": 1.0, "queue_depth": float(THRESHOLD), "lease": 1.0, "reserved": 1.0, "floor": 1.0}
    async with served(terms) as stays:
        async with served(terms) as goes:
            server.scrape((stays.url, goes.url))
            await reserve(stays)
            assert await post(stays, "tenant") == 202
            await server.until(steady)
            done = asyncio.Event()
            asking = asyncio.create_task(server.always(steady, done, least=4))
        async with served(terms) as comes:
            server.scrape((stays.url, comes.url))
            await server.scraped(comes.url)
            done.set()
            await asking
        server.scrape(())
        await server.until(dict.fromkeys(steady))
