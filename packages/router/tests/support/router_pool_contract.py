"""What every store of pools promises, each in its own way of keeping them; subclass it with a fixture `stores`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from router_builders import L4, pool
from router_fakes import eventually
from sie_protocol.errors import ErrorCode, Problem
from sie_router.control.pools import PoolFinder, PoolStore, follow_pools
from sie_router.control.reaper import Reaper
from sie_router.control.store import FleetStore
from sie_router.core.events import PoolPut
from sie_router.core.index import empty_fleet
from sie_router.core.leases import LEASE_S, MAX_SKEW_S, unless_renewed
from sie_router.core.pools import ANYONE, Pool, put, renew

TRIES = 10  # a busy machine may stand still for a second at any time, but not each time


@asynccontextmanager
async def following(store: PoolStore, followed: set[str] | None = None) -> AsyncIterator[FleetStore]:
    fleet = FleetStore(empty_fleet([L4]), asyncio.get_running_loop().time)
    task = asyncio.create_task(follow_pools(store, fleet.publish, set() if followed is None else followed))
    try:
        yield fleet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def make(store: PoolStore, asked: Pool) -> Pool | None:
    return await store.change(asked.name, partial(put, asked=asked, caller=ANYONE))


class PoolStoreContract:
    """`stores` are two views of the same pools, as two routers have them."""

    async def test_what_was_put_is_there_for_everybody(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        asked = pool(
            "a", {"l4": 2}, bundle="vision", minimum_worker_count=1, owner="o", created_at=1.5, last_renewed=2.5
        )
        assert await make(one, asked) == asked
        assert await one.get("a") == await two.get("a") == asked
        assert await two.get("b") is None

    async def test_a_change_is_heard_everywhere_within_a_second(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        await make(one, pool("before"))
        async with following(one) as mine, following(two) as theirs:
            await eventually(lambda: set(theirs.snapshot().pools) == {"before"})
            loop = asyncio.get_running_loop()
            for _ in range(TRIES):
                began = loop.time()
                await make(one, pool("a"))
                await eventually(lambda: set(theirs.snapshot().pools) == {"before", "a"})
                if loop.time() - began < 1:
                    break
                await one.change("a", lambda _: None)
                await eventually(lambda: set(theirs.snapshot().pools) == {"before"})
            else:
                raise AssertionError(f"never within a second, in {TRIES} tries")
            await two.change("a", partial(renew, name="a", caller=ANYONE, now=50.0))
            await eventually(lambda: mine.snapshot().pools["a"].last_renewed == 50.0)
            await make(one, pool("a", {"l4": 3}, last_renewed=60.0))
            await eventually(lambda: theirs.snapshot().pools["a"].gpus == {"l4": 3})
            await two.change("a", lambda _: None)
            await eventually(lambda: set(mine.snapshot().pools) == {"before"})
            await eventually(lambda: set(theirs.snapshot().pools) == {"before"})

    async def test_deleting_twice_is_deleting(self, stores: tuple[PoolStore, PoolStore]) -> None:
        await make(stores[0], pool("a"))
        for store in (*stores, *stores):
            assert await store.change("a", lambda _: None) is None
        assert await stores[1].get("a") is None

    async def test_a_refused_change_changes_nothing(self, stores: tuple[PoolStore, PoolStore]) -> None:
        with pytest.raises(Problem) as refused:
            await stores[0].change("a", partial(renew, name="a", caller=ANYONE, now=1.0))
        assert refused.value.code is ErrorCode.POOL_NOT_FOUND
        assert await stores[1].get("a") is None

    async def test_no_renewal_of_many_at_once_is_lost(self, stores: tuple[PoolStore, PoolStore]) -> None:
        await make(stores[0], pool("a"))
        renewals = (
            stores[number % 2].change("a", partial(renew, name="a", caller=ANYONE, now=float(number)))
            for number in range(1, 5)
        )
        await asyncio.gather(*renewals)
        stored = await stores[0].get("a")
        assert stored is not None
        assert stored.last_renewed >= 4.0

    async def test_a_renewal_beats_a_reaper_that_has_not_heard_of_it(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        await make(one, pool("a"))
        now = LEASE_S + MAX_SKEW_S + 1
        await two.change("a", partial(renew, name="a", caller=ANYONE, now=now))
        assert await one.change("a", partial(unless_renewed, now=now)) is not None
        assert await two.get("a") is not None

    async def test_a_deleted_name_can_be_used_again(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        await make(one, pool("a", {"l4": 2}))
        await two.change("a", lambda _: None)
        await make(one, pool("a", {"l4": 1}, created_at=9.0, last_renewed=9.0))
        assert await two.get("a") == pool("a", {"l4": 1}, created_at=9.0, last_renewed=9.0)

    async def test_the_reaper_deletes_what_expired_and_nothing_else(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        now = LEASE_S + MAX_SKEW_S + 10
        await make(one, pool("old"))
        await make(one, pool("young", last_renewed=20.0))
        async with following(two) as fleet:
            await eventually(lambda: len(fleet.snapshot().pools) == 2)
            await Reaper(two, fleet.snapshot, fleet.publish, lambda: now, ()).reap()
            assert set(fleet.snapshot().pools) == {"young"}
        assert await one.get("old") is None
        assert await one.get("young") is not None

    async def test_a_pool_that_was_never_heard_of_is_found(self, stores: tuple[PoolStore, PoolStore]) -> None:
        await make(stores[0], pool("a"))
        fleet = FleetStore(empty_fleet([L4]), asyncio.get_running_loop().time)
        finder = PoolFinder(stores[1], fleet.publish)
        await asyncio.gather(*(finder.find(name) for name in ("a", "a", "b", "no name")))
        assert set(fleet.snapshot().pools) == {"a"}

    async def test_a_pool_that_came_and_went_unseen_is_forgotten(self, stores: tuple[PoolStore, PoolStore]) -> None:
        one, two = stores
        followed = set[str]()
        await make(one, pool("listed"))
        async with following(two, followed) as fleet:
            await eventually(lambda: followed == {"listed"})
            await make(one, pool("stays"))
            brief = pool("brief", {"l4": 2})
            fleet.publish(PoolPut(brief))  # as a request finds it that comes before this router's next look
            reaper = Reaper(two, fleet.snapshot, fleet.publish, lambda: 0.0, followed)
            await reaper.forget()
            assert "brief" not in fleet.snapshot().pools
            await eventually(lambda: followed == set(fleet.snapshot().pools) == {"listed", "stays"})
            await reaper.forget()
            assert set(fleet.snapshot().pools) == {"listed", "stays"}
