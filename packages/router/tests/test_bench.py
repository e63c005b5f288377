"""The router's benchmark measures what it says."""

import asyncio
import itertools
import statistics
from collections.abc import Awaitable, Callable

from open_loop import open_loop
from router_builders import status
from router_fakes import Exchange, FakeWorker

MakeWorker = Callable[..., Awaitable[FakeWorker]]
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"


async def test_a_slow_server_is_charged_with_the_requests_that_waited_for_it(make_worker: MakeWorker) -> None:
    """A load that waits for answers would see 20 ms, whatever the server makes of more than it can take."""

    async def take_a_while(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        exchange.reply(200)

    worker = await make_worker(status(), take_a_while)
    passed = await asyncio.to_thread(open_loop, worker.port, REQUEST, 1, 100, 0.6)
    assert passed.p50_ms > 60
    assert passed.per_second < 50


async def test_arrivals_keep_no_step(make_worker: MakeWorker) -> None:
    times: list[float] = []

    async def note(exchange: Exchange) -> None:
        times.append(asyncio.get_running_loop().time())
        exchange.reply(200)

    worker = await make_worker(status(), note)
    passed = await asyncio.to_thread(open_loop, worker.port, REQUEST, 32, 400, 1.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 300 < len(times) < 500
    assert statistics.stdev(gaps) > 0.6 * statistics.mean(gaps)  # as much as the mean for Poisson, 0 for equal pauses
    assert passed.per_second > 100  # 400 but for what this machine stood still
