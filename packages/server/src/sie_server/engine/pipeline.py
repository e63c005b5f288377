"""The CPU pool: tokenising before the device, and whatever else is too long for the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sie_server.adapters.base import Adapter, Input, Prepared
from sie_server.engine.loop import Clock

T = TypeVar("T")


class Pipeline:
    """Threads for CPU work around the device."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cpu")

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def prepare(
        self, adapter: Adapter, inputs: Sequence[Input], *, is_query: bool
    ) -> tuple[list[Prepared], float]:
        """Tokenise one request's inputs in one call; also the seconds it took, waiting for a thread included."""
        started = self._clock()
        prepared = await self.run(partial(adapter.prepare, inputs, is_query=is_query))
        return prepared, self._clock() - started

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.to_thread(self._pool.shutdown)
