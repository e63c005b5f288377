"""What every store of pools promises, each in its own way of keeping them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from router_builders import L4, pool
from router_fakes import eventually
from router_kube import FakeKube
from sie_protocol.errors import ErrorCode, Problem
from sie_router.control.kube import KubeApi, Pace
from sie_router.control.kube_objects import CONFIG_MAPS, LEASES
from sie_router.control.pools import PoolFinder, PoolStore, changes, follow_pools
from sie_router.control.pools_file import FilePools
from sie_router.control.pools_kube import PREFIX, TYPE_LABEL, KubePools
from sie_router.control.pools_memory import MemoryPools
from sie_router.control.reaper import Reaper
from sie_router.control.store import FleetStore
from sie_router.core.index import empty_fleet
from sie_router.core.leases import LEASE_S, MAX_SKEW_S, unless_renewed
from sie_router.core.pools import ANYONE, Pool, put, renew

QUICK = Pace(first_pause_s=0.01, longest_pause_s=0.02)


def half() -> float:
    return 0.5


@asynccontextmanager
async def following(store: PoolStore) -> AsyncIterator[FleetStore]:
    fleet = FleetStore(empty_fleet([L4]), asyncio.get_running_loop().time)
    task = asyncio.create_task(follow_pools(store, fleet.publish))
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
            async with asyncio.timeout(1):
                await make(one, pool("a"))
                await eventually(lambda: set(theirs.snapshot().pools) == {"before", "a"})
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
            await Reaper(two, fleet.snapshot, fleet.publish, lambda: now).reap()
            assert set(fleet.snapshot().pools) == {"young"}
        assert await one.get("old") is None
        assert await one.get("young") is not None

    async def test_a_pool_that_was_never_heard_of_is_found(self, stores: tuple[PoolStore, PoolStore]) -> None:
        await make(stores[0], pool("a"))
        fleet = FleetStore(empty_fleet([L4]), half)
        finder = PoolFinder(stores[1], fleet.publish)
        await asyncio.gather(*(finder.find(name) for name in ("a", "a", "b", "no name")))
        assert set(fleet.snapshot().pools) == {"a"}


class TestMemoryPools(PoolStoreContract):
    @pytest.fixture
    def stores(self) -> tuple[PoolStore, PoolStore]:
        store = MemoryPools()
        return store, store


class TestFilePools(PoolStoreContract):
    @pytest.fixture
    def stores(self, tmp_path: Path) -> tuple[PoolStore, PoolStore]:
        return FilePools(tmp_path / "pools.json"), FilePools(tmp_path / "pools.json")

    async def test_pools_survive_a_restart(self, tmp_path: Path) -> None:
        await make(FilePools(tmp_path / "deep" / "pools.json"), pool("a"))
        assert await FilePools(tmp_path / "deep" / "pools.json").get("a") == pool("a")

    async def test_a_broken_file_is_never_overwritten_and_the_last_pools_stand(self, tmp_path: Path) -> None:
        path = tmp_path / "pools.json"
        store = FilePools(path)
        await make(store, pool("a"))
        async with following(store) as fleet:
            await eventually(lambda: set(fleet.snapshot().pools) == {"a"})
            path.write_text("[{")
            with pytest.raises(Problem) as refused:
                await make(store, pool("b"))
            assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
            assert path.read_text() == "[{"
            path.write_text("[]")
            await eventually(lambda: not fleet.snapshot().pools)


class TestKubePools(PoolStoreContract):
    @pytest.fixture
    async def kube(self) -> AsyncIterator[FakeKube]:
        server = await FakeKube().start()
        yield server
        await server.stop()

    @pytest.fixture
    async def apis(self, kube: FakeKube) -> AsyncIterator[tuple[KubeApi, KubeApi]]:
        one, two = kube.api(), kube.api()
        yield one, two
        await one.close()
        await two.close()

    @pytest.fixture
    def stores(self, apis: tuple[KubeApi, KubeApi]) -> tuple[PoolStore, PoolStore]:
        return KubePools(apis[0], half, QUICK), KubePools(apis[1], half, QUICK)

    async def test_only_intent_is_stored(self, stores: tuple[PoolStore, PoolStore], kube: FakeKube) -> None:
        await make(stores[0], pool("a", {"l4": 2}, owner="o", created_at=1.0, last_renewed=2.0))
        config, lease = (_object(kube, kind.plural) for kind in (CONFIG_MAPS, LEASES))
        assert config["metadata"]["name"] == lease["metadata"]["name"] == PREFIX + "a"
        assert config["metadata"]["labels"] == {TYPE_LABEL: "pool"}
        assert config["data"] == {"spec": '{"gpus":{"l4":2}}', "origin": '{"owner":"o","created_at":1.0}'}
        assert lease["spec"] == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 1200,
            "renewTime": "1970-01-01T00:00:02.000000Z",
        }

    async def test_a_renewal_writes_the_lease_only(self, stores: tuple[PoolStore, PoolStore], kube: FakeKube) -> None:
        await make(stores[0], pool("a"))
        kube.asked.clear()
        await stores[1].change("a", partial(renew, name="a", caller=ANYONE, now=5.0))
        assert [(asked.method, "leases" in asked.path) for asked in kube.asked if asked.method != "GET"] == [
            ("PUT", True)
        ]

    async def test_half_a_pool_is_none_and_its_name_is_free(
        self, stores: tuple[PoolStore, PoolStore], kube: FakeKube
    ) -> None:
        for kind in (LEASES, CONFIG_MAPS):
            await make(stores[0], pool("a", {"l4": 2}))
            await kube.drop(kind, PREFIX + "a")
            assert await stores[1].get("a") is None
            await make(stores[1], pool("a", {"l4": 1}))
            assert await stores[0].get("a") == pool("a", {"l4": 1})

    async def test_what_an_operator_wrote_by_hand_is_a_pool_and_nonsense_is_none(
        self, stores: tuple[PoolStore, PoolStore], kube: FakeKube
    ) -> None:
        for name, spec in (("hand", '{"gpus":{"l4":1}}'), ("bad", '{"gpus":{"l4":"x"}}'), ("worse", "{")):
            labels = {TYPE_LABEL: "pool"}
            meta = {"labels": labels, "creationTimestamp": "1970-01-01T00:00:03Z"}
            await kube.put(CONFIG_MAPS, PREFIX + name, {"metadata": meta, "data": {"spec": spec}})
            await kube.put(LEASES, PREFIX + name, {"metadata": {"labels": labels}, "spec": {}})
        async with following(stores[0]) as fleet:
            await eventually(lambda: bool(fleet.snapshot().pools))
            assert fleet.snapshot().pools == {"hand": pool("hand", created_at=3.0, last_renewed=3.0)}
        assert await make(stores[0], pool("bad")) == await stores[1].get("bad")

    async def test_an_outage_is_a_refusal_and_the_last_pools_stand(
        self, stores: tuple[PoolStore, PoolStore], kube: FakeKube
    ) -> None:
        await make(stores[0], pool("a"))
        async with following(stores[0]) as fleet:
            await eventually(lambda: set(fleet.snapshot().pools) == {"a"})
            await kube.stop()
            with pytest.raises(Problem) as refused:
                await make(stores[1], pool("b"))
            assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
            assert set(fleet.snapshot().pools) == {"a"}
            await kube.start()
            await make(stores[1], pool("b"))
            await eventually(lambda: set(fleet.snapshot().pools) == {"a", "b"})


def _object(kube: FakeKube, plural: str) -> dict[str, dict[str, object]]:
    return next(body for key, body in kube.objects.items() if f"/{plural}/" in key)


def test_the_events_between_two_sets_lead_from_one_to_the_other() -> None:
    before = {"a": pool("a"), "b": pool("b"), "c": pool("c")}
    after = {"b": pool("b"), "c": pool("c", {"l4": 2}), "d": pool("d")}
    kinds = sorted(type(event).__name__ for event in changes(before, after))
    assert kinds == ["PoolGone", "PoolPut", "PoolPut"]
