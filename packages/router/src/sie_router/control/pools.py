"""Where pools are kept, and how the fleet hears of them. Only intent is stored: specification, owner, last renewal."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Final, Protocol, assert_never

from sie_protocol.errors import ErrorCode, Problem
from sie_router.core.events import Event, PoolEvent, PoolGone, PoolPut, PoolsListed
from sie_router.core.pools import MAX_WORKERS, Pool, is_name, within_bounds

AGAIN_S: Final = 1.0
MAX_TOLD: Final = 1000  # pools whose faults are remembered
MAX_LOOKUPS: Final = 8  # at a time; a flood of wrong names must not become a flood of requests to the store

Step = Callable[[Pool | None], Pool | None]

logger = logging.getLogger(__name__)


class PoolStore(Protocol):
    """Keeps pools, for one router or for many. No method holds a lock while it waits for others."""

    def watch(self) -> AsyncGenerator[PoolEvent]:
        """Yield `PoolsListed` first and then every change, whoever made it; never ends."""
        ...

    async def get(self, name: str) -> Pool | None:
        """The pool as it is stored now.

        Raises:
            Problem: STORE_UNAVAILABLE.
        """
        ...

    async def change(self, name: str, step: Step) -> Pool | None:
        """Replace a pool by `step` of it, where None means that there is none; returns what is stored then.

        `step` sees the stored pool, never a remembered one, and may be called again when others write at the same time.

        Raises:
            Problem: STORE_UNAVAILABLE, or whatever `step` raises; nothing was changed then.
        """
        ...


def unavailable(error: Exception) -> Problem:
    """The refusal of whatever needs a store that cannot be reached."""
    return Problem(ErrorCode.STORE_UNAVAILABLE, f"the store of pools cannot be used now, try again: {error}")


class Bounds:
    """Stored pools as they may be used. A fault of one is logged once, until it is another one."""

    def __init__(self, max_workers: int = MAX_WORKERS) -> None:
        self._max_workers = max_workers
        self._told: dict[str, Pool] = {}

    def __call__(self, stored: Pool | None) -> Pool | None:
        """The pool within the bounds, if there is one."""
        if stored is None:
            return None
        sound = within_bounds(stored, self._max_workers)
        told = self._told.get(stored.name)
        if sound is not stored and (told is None or told.reservation != stored.reservation):
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[stored.name] = stored
            self._tell(stored, sound)
        return sound

    def _tell(self, stored: Pool, sound: Pool | None) -> None:
        logger.warning(
            "the stored pool '%s' asks for %s with a floor of %d; expected at least 1 of each, %d in all and a floor "
            "within that, so it counts as %s",
            stored.name,
            dict(stored.gpus),
            stored.minimum_worker_count,
            self._max_workers,
            "none" if sound is None else f"{dict(sound.gpus)} with a floor of {sound.minimum_worker_count}",
        )


def changes(before: Mapping[str, Pool], after: Mapping[str, Pool]) -> Iterator[PoolEvent]:
    """The events that lead from one set of pools to another."""
    for name in before.keys() - after.keys():
        yield PoolGone(name)
    for name, pool in after.items():
        if before.get(name) != pool:
            yield PoolPut(pool)


async def follow_pools(store: PoolStore, publish: Callable[[Event], None], followed: set[str]) -> None:
    """Tell the fleet of every pool; never returns, cancel it.

    `followed` is kept as the names whose end will be told. A pool that came and went between two looks is never among
    them, whoever else told the fleet of it.
    """
    while True:
        try:
            async with aclosing(store.watch()) as events:
                async for event in events:
                    _note(event, followed)
                    publish(event)
        except Exception:
            logger.exception("the pools cannot be followed, trying again in %g s", AGAIN_S)
        await asyncio.sleep(AGAIN_S)


def _note(event: PoolEvent, followed: set[str]) -> None:
    match event:
        case PoolPut(pool):
            followed.add(pool.name)
        case PoolGone(name):
            followed.discard(name)
        case PoolsListed(pools):
            followed.clear()
            followed.update(pool.name for pool in pools)
        case _:
            assert_never(event)


class PoolFinder:
    """Looks up a pool that this router has not heard of yet: it may have been made a moment ago, on another router."""

    def __init__(self, store: PoolStore, publish: Callable[[Event], None]) -> None:
        self._store = store
        self._publish = publish
        self._room = asyncio.Semaphore(MAX_LOOKUPS)
        self._asked: dict[str, asyncio.Future[Problem | None]] = {}  # names that are being looked up, and the outcome

    async def find(self, name: str) -> None:
        """Tell the fleet of the pool, if it exists after all. Requests for the same name share one look-up.

        Raises:
            Problem: STORE_UNAVAILABLE; nobody can say whether the pool exists.
        """
        if not is_name(name):
            return
        while (asked := self._asked.get(name)) is not None:
            await asyncio.wait((asked,))
            if not asked.cancelled():
                _raise(asked.result())
                return
            # Whoever asked went away without an answer; the first of those who waited for it asks now.
        await self._look_up(name)

    async def _look_up(self, name: str) -> None:
        asked = self._asked[name] = asyncio.get_running_loop().create_future()
        try:
            async with self._room:
                pool = await self._store.get(name)
            if pool is not None:
                self._publish(PoolPut(pool))
            asked.set_result(None)
        except Problem as problem:
            asked.set_result(problem)
            raise
        finally:
            del self._asked[name]
            asked.cancel()  # changes nothing where there is a result


def _raise(problem: Problem | None) -> None:
    """Refuse with a problem of one's own: whoever answers with it may change it."""
    if problem is not None:
        raise Problem(problem.code, problem.message, details=problem.details)


class Snapshots:
    """Turns successive sets of pools into events; the first set is listed as a whole."""

    def __init__(self) -> None:
        self._last: dict[str, Pool] | None = None

    def events(self, pools: Mapping[str, Pool]) -> tuple[PoolEvent, ...]:
        """What is new since the last call."""
        last, self._last = self._last, dict(pools)
        return (PoolsListed(tuple(pools.values())),) if last is None else tuple(changes(last, pools))
