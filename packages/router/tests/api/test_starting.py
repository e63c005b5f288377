"""What a router says before it knows who may serve whom."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from router_builders import MODEL, pool, status
from router_fakes import WAIT_S, FakeWorker, Served, eventually, served, settings
from router_kube import FakeKube, kubeconfig
from sie_router.core.demand import wanted
from sie_router.settings import Kubernetes

MakeWorker = Callable[..., Awaitable[FakeWorker]]
ENCODE = f"/v1/encode/{MODEL}"


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    server = await FakeKube().start()
    yield server
    await server.close()


async def refused(router: Served, client: httpx.AsyncClient, waits_for: str, headers: dict[str, str]) -> None:
    """Neither ready nor of use, and nothing came of asking."""
    unready = await client.get("/readyz")
    assert (unready.status_code, waits_for in unready.json()["error"]["message"]) == (503, True)
    early = await client.post(ENCODE, content=b"{}", headers=headers)
    said = (early.status_code, early.headers["x-sie-error-code"], early.headers["retry-after"])
    assert said == (503, "STORE_UNAVAILABLE", "1")
    assert waits_for in early.json()["error"]["message"]
    assert not any(wanted(router.app.store.snapshot(), 0).values())


async def test_without_its_api_server_a_router_asks_for_no_worker(kube: FakeKube, tmp_path: Path) -> None:
    await kube.stop()
    wanting = settings(kubernetes=Kubernetes(kubeconfig=kubeconfig(tmp_path, kube.port)))
    async with served(wanting) as router, httpx.AsyncClient(base_url=router.url) as client:
        await refused(router, client, "its workers and the list of pools", {})
        await kube.start()
        await eventually(lambda: not router.app.store.snapshot().unheard)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post(ENCODE, content=b"{}")).status_code == 202


async def test_nobody_runs_on_a_worker_that_may_be_reserved(make_worker: MakeWorker, tmp_path: Path) -> None:
    worker = await make_worker(status("l4-0", loaded=[MODEL]))
    path = tmp_path / "pools.json"
    path.write_text("{corrupt")
    async with (
        served(settings(worker, pools_file=path)) as router,
        httpx.AsyncClient(base_url=router.url) as client,
    ):
        await eventually(lambda: router.healthy() == 1)
        for headers in ({}, {"X-SIE-Pool": "tenant-b"}):
            await refused(router, client, "the list of pools", headers)
        assert not worker.seen
        first = pool("tenant-a", created_at=1.0, last_renewed=9e9)
        path.write_bytes(msgspec.json.encode([first, pool("tenant-b", created_at=2.0, last_renewed=9e9)]))
        await eventually(lambda: not router.app.store.snapshot().unheard)
        codes = [
            (await client.post(ENCODE, content=b"{}", headers=headers)).status_code
            for headers in ({}, {"X-SIE-Pool": "tenant-b"}, {"X-SIE-Pool": "tenant-a"})
        ]
        assert codes == [202, 202, 200]


async def test_a_worker_that_runs_is_met_before_the_first_request(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0", loaded=[MODEL]))
    async with served(settings(worker)) as router, httpx.AsyncClient(base_url=router.url) as client:
        codes = set[int]()
        async with asyncio.timeout(WAIT_S):
            while (answer := await client.post(ENCODE, content=b"{}")).status_code != 200:
                codes.add(answer.status_code)
        assert codes <= {503}
        assert (await client.get("/readyz")).json()["healthy_workers"] == 1
