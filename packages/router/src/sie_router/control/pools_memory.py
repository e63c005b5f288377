"""Pools of one router that keeps them for itself: they end with its process."""

import asyncio
from collections.abc import AsyncGenerator

from sie_router.control.pools import Snapshots, Step
from sie_router.core.events import PoolEvent
from sie_router.core.pools import Pool


class MemoryPools:
    """A `PoolStore` in memory. Only `change` writes, and it does not await."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._changed = asyncio.Event()

    async def watch(self) -> AsyncGenerator[PoolEvent]:
        """As the protocol says; a slow reader misses versions in between, never the last one."""
        seen = Snapshots()
        while True:
            changed = self._changed
            for event in seen.events(self._pools):
                yield event
            await changed.wait()

    async def get(self, name: str) -> Pool | None:
        """As the protocol says; always available."""
        return self._pools.get(name)

    async def change(self, name: str, step: Step) -> Pool | None:
        """As the protocol says; always available."""
        after = step(self._pools.get(name))
        if after is None:
            self._pools.pop(name, None)
        else:
            self._pools[name] = after
        self._changed.set()
        self._changed = asyncio.Event()
        return after
