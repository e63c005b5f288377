import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from router_builders import pool
from router_fakes import eventually
from router_kube import FakeKube
from router_pool_contract import PoolStoreContract, following, make
from sie_protocol.errors import ErrorCode, Problem
from sie_router.control.kube import KubeApi, Pace
from sie_router.control.kube_objects import CONFIG_MAPS, LEASES
from sie_router.control.pools import PoolFinder, PoolStore, changes
from sie_router.control.pools_file import FilePools
from sie_router.control.pools_kube import RELEASE, RELEASE_LABEL, TYPE_LABEL, KubePools, prefix
from sie_router.control.pools_memory import MemoryPools
from sie_router.core.demand import reserved
from sie_router.core.events import Event, PoolPut
from sie_router.core.pools import ANYONE, renew

QUICK = Pace(first_pause_s=0.01, longest_pause_s=0.02)


def half() -> float:
    return 0.5


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

    async def test_what_was_written_by_hand_is_used_within_the_bounds_and_complained_of_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "pools.json"
        wrong = [pool("less", {"l4": -5, "a100": 2}, minimum_worker_count=9), pool("more", {"l4": 70}), pool("no", {})]
        path.write_bytes(msgspec.json.encode([*wrong, pool("a")]))
        store = FilePools(path)
        sound = {
            "less": pool("less", {"a100": 2}, minimum_worker_count=2),
            "more": pool("more", {"l4": 64}),
            "a": pool("a"),
        }
        async with following(store) as fleet:
            await eventually(lambda: bool(fleet.snapshot().pools))
            assert fleet.snapshot().pools == sound
            assert set(reserved(fleet.snapshot(), 0.0).values()) == {65}
        assert [await store.get(each.name) for each in wrong] == [sound["less"], sound["more"], None]
        assert len(caplog.records) == 3
        renewed = await store.change("less", partial(renew, name="less", caller=ANYONE, now=5.0))
        assert renewed == pool("less", {"a100": 2}, minimum_worker_count=2, last_renewed=5.0)
        kept = {each["name"]: each["gpus"] for each in msgspec.json.decode(path.read_bytes())}
        assert kept == {"a": {"l4": 1}, "less": {"a100": 2}, "more": {"l4": 70}, "no": {}}


class TestKubePools(PoolStoreContract):
    @pytest.fixture
    async def kube(self) -> AsyncIterator[FakeKube]:
        server = await FakeKube().start()
        yield server
        await server.close()

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
        assert config["metadata"]["name"] == lease["metadata"]["name"] == prefix(RELEASE) + "a"
        assert config["metadata"]["labels"] == {TYPE_LABEL: "pool", RELEASE_LABEL: "sie"}
        assert config["data"] == {"spec": '{"gpus":{"l4":2}}', "origin": '{"owner":"o","created_at":1.0}'}
        assert lease["spec"] == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 1200,
            "renewTime": "1970-01-01T00:00:02.000000Z",
        }

    async def test_releases_of_one_namespace_do_not_see_each_others_pools(
        self, stores: tuple[PoolStore, PoolStore], apis: tuple[KubeApi, KubeApi]
    ) -> None:
        other = KubePools(apis[1], half, QUICK, release="other")
        await make(stores[0], pool("a", {"l4": 2}))
        await make(other, pool("b", {"l4": 1}))
        assert await other.get("a") is None
        async with following(stores[0]) as first, following(other) as second:
            await eventually(lambda: set(first.snapshot().pools) == {"a"} and set(second.snapshot().pools) == {"b"})

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
            await kube.drop(kind, prefix(RELEASE) + "a")
            assert await stores[1].get("a") is None
            await make(stores[1], pool("a", {"l4": 1}))
            assert await stores[0].get("a") == pool("a", {"l4": 1})

    async def test_what_an_operator_wrote_by_hand_is_a_pool_and_nonsense_is_none(
        self, stores: tuple[PoolStore, PoolStore], kube: FakeKube
    ) -> None:
        for name, spec in (("hand", '{"gpus":{"l4":1,"a100":-5}}'), ("bad", '{"gpus":{"l4":"x"}}'), ("worse", "{")):
            labels = {TYPE_LABEL: "pool"}
            meta = {"labels": labels, "creationTimestamp": "1970-01-01T00:00:03Z"}
            await kube.put(CONFIG_MAPS, prefix(RELEASE) + name, {"metadata": meta, "data": {"spec": spec}})
            await kube.put(LEASES, prefix(RELEASE) + name, {"metadata": {"labels": labels}, "spec": {}})
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


async def test_everybody_who_shares_a_look_up_hears_that_it_failed(tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    path.mkdir()
    finder = PoolFinder(FilePools(path), lambda _: None)
    found = await asyncio.gather(*(finder.find("a") for _ in range(6)), return_exceptions=True)
    assert [each.code for each in found if isinstance(each, Problem)] == [ErrorCode.STORE_UNAVAILABLE] * 6
    assert len(set(map(id, found))) == 6


async def test_a_look_up_goes_on_for_the_others_when_the_first_one_leaves(tmp_path: Path) -> None:
    store, events = FilePools(tmp_path / "pools.json"), list[Event]()
    await make(store, pool("a"))
    finder = PoolFinder(store, events.append)
    first, *others = [asyncio.create_task(finder.find("a")) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(*others)
    assert first.cancelled()
    assert events == [PoolPut(pool("a"))]


def _object(kube: FakeKube, plural: str) -> dict[str, dict[str, object]]:
    return next(body for key, body in kube.objects.items() if f"/{plural}/" in key)


def test_the_events_between_two_sets_lead_from_one_to_the_other() -> None:
    before = {"a": pool("a"), "b": pool("b"), "c": pool("c")}
    after = {"b": pool("b"), "c": pool("c", {"l4": 2}), "d": pool("d")}
    kinds = sorted(type(event).__name__ for event in changes(before, after))
    assert kinds == ["PoolGone", "PoolPut", "PoolPut"]
