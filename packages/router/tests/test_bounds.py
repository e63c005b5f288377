import asyncio
import gc
import random
from collections.abc import Awaitable, Callable

import httpx

from router_builders import status
from router_fakes import FakeWorker, Served, eventually, served, settings

MakeWorker = Callable[..., Awaitable[FakeWorker]]
BATCH = 100


async def ask_for_nobodys_names(router: Served, draw: random.Random, count: int) -> None:
    """Requests for random models, some in random pools, all on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            pool = f"x-sie-pool: pool-{draw.random()}\r\n" if draw.random() < 0.3 else ""
            head = f"POST /v1/encode/org/model-{draw.random()} HTTP/1.1\r\nhost: x\r\n{pool}content-length: 2\r\n\r\n"
            writer.write(head.encode() + b"{}")
        answered = 0
        async with asyncio.timeout(20):
            while answered < BATCH:
                answered += (await reader.readuntil(b"\r\n\r\n")).count(b"HTTP/1.1 ")
    writer.close()
    await writer.wait_closed()


async def test_names_that_callers_make_up_leave_no_trace(make_worker: MakeWorker) -> None:
    async def series() -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{router.url}/metrics")).text.count("\nsie_router")

    draw = random.Random(4)
    worker = await make_worker(status("w"))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        counted: list[tuple[int, int]] = []
        for _ in range(2):
            await ask_for_nobodys_names(router, draw, 1_200)  # more than any cache of names holds
            await eventually(lambda: not router.app.inflight.workers)
            worker.seen.clear()
            router.outcomes.clear()
            exported = await series()
            gc.collect()
            counted.append((len(gc.get_objects()), exported))
    (before, exported_before), (after, exported_after) = counted
    assert exported_after == exported_before
    assert after - before < 100  # less than one object for ten requests
