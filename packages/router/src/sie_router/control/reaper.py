"""Deletes the pools whose lease ended, and forgets those that do not exist any more.

Every router does; whoever comes second finds nothing left to do.
"""

import asyncio
import logging
from collections.abc import Callable, Container
from functools import partial
from typing import Final

from sie_protocol.errors import Problem
from sie_router.control.pools import PoolStore
from sie_router.core.events import Event, PoolGone, PoolPut
from sie_router.core.fleet import Fleet
from sie_router.core.leases import expired, unless_renewed

EVERY_S: Final = 5.0
PER_LEASE: Final = 20  # looks in the time of one lease, where a short lease needs more of them

logger = logging.getLogger(__name__)


class Reaper:
    """`clock` is Unix time in seconds, `followed` the names of pools whose end will be told."""

    def __init__(
        self,
        store: PoolStore,
        snapshot: Callable[[], Fleet],
        publish: Callable[[Event], None],
        clock: Callable[[], float],
        followed: Container[str],
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._publish = publish
        self._clock = clock
        self._followed = followed
        self._every_s = min(every_s, snapshot().lease_s / PER_LEASE)

    async def run(self) -> None:
        """Delete what expires; never returns, cancel it."""
        while True:
            try:
                await self.reap()
                await self.forget()
            except Exception:
                logger.exception("expired pools could not be deleted, trying again in %g s", self._every_s)
            await asyncio.sleep(self._every_s)

    async def reap(self) -> None:
        """Delete what is expired now, unless the store knows of a renewal that this router has not heard of."""
        now, fleet = self._clock(), self._snapshot()
        for pool in expired(fleet.pools.values(), now, fleet.lease_s):
            try:
                left = await self._store.change(pool.name, partial(unless_renewed, now=now, lease_s=fleet.lease_s))
            except Problem as problem:
                logger.warning("pool '%s' expired and could not be deleted: %s", pool.name, problem.message)
                continue
            self._publish(PoolGone(pool.name) if left is None else PoolPut(left))
            if left is None:
                logger.info("pool '%s' expired: nobody renewed it", pool.name)

    async def forget(self) -> None:
        """Drop the pools that do not exist and whose end nobody will tell.

        One that was made and deleted between two looks at the store may have been found by a request in between: it
        would reserve its workers here until its lease ends.
        """
        for name, pool in self._snapshot().pools.items():
            if name in self._followed:
                continue
            try:
                stored = await self._store.get(name)
            except Problem as problem:
                logger.warning("nobody can say whether pool '%s' still exists: %s", name, problem.message)
                return
            if stored is None and self._snapshot().pools.get(name) is pool and name not in self._followed:
                self._publish(PoolGone(name))
