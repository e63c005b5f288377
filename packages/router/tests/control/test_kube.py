import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from router_fakes import WAIT_S, eventually
from router_kube import FakeKube, kubeconfig, slice_of
from sie_router.control.kube import Conflict, Gone, KubeApi, KubeError, NotFound, Pace, Unreachable, connect, follow
from sie_router.control.kube_objects import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, ConfigMap, Lease, LeaseSpec, Meta

QUICK = Pace(watch_s=30, silence_s=20, first_pause_s=0.01, longest_pause_s=0.05)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    server = await FakeKube().start()
    yield server
    await server.close()


@pytest.fixture
async def api(kube: FakeKube) -> AsyncIterator[KubeApi]:
    client = kube.api()
    yield client
    await client.close()


def config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=Meta(name=name), data=data)


class Follower:
    """The sets a follower saw; the last one is what it knows."""

    def __init__(self) -> None:
        self.sets: list[Mapping[str, ConfigMap]] = []

    @property
    def names(self) -> set[str] | None:
        return set(self.sets[-1]) if self.sets else None


@asynccontextmanager
async def following(
    api: KubeApi, pace: Pace = QUICK, draw: Callable[[], float] = lambda: 0.5
) -> AsyncIterator[Follower]:
    follower = Follower()

    async def run() -> None:
        async with aclosing(follow(api, CONFIG_MAPS, draw=draw, pace=pace)) as sets:
            async for each in sets:
                follower.sets.append(each)

    task = asyncio.create_task(run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_created_is_read_back_changed_and_deleted(api: KubeApi) -> None:
    made = await api.create(LEASES, Lease(metadata=Meta(name="a"), spec=LeaseSpec(holder_identity="me")))
    assert (await api.get(LEASES, "a")) == made
    changed = await api.put(LEASES, Lease(metadata=made.metadata, spec=LeaseSpec(holder_identity="you")))
    assert changed.spec.holder_identity == "you"
    assert changed.metadata.resource_version != made.metadata.resource_version
    await api.delete(LEASES, "a")
    with pytest.raises(NotFound):
        await api.get(LEASES, "a")


async def test_only_one_of_two_writers_of_the_same_version_wins(api: KubeApi) -> None:
    made = await api.create(CONFIG_MAPS, config_map("a"))
    await api.put(CONFIG_MAPS, ConfigMap(metadata=made.metadata, data={"x": "1"}))
    with pytest.raises(Conflict):
        await api.put(CONFIG_MAPS, ConfigMap(metadata=made.metadata, data={"x": "2"}))
    with pytest.raises(Conflict):
        await api.delete(CONFIG_MAPS, "a", version=made.metadata.resource_version)
    with pytest.raises(Conflict):
        await api.create(CONFIG_MAPS, config_map("a"))


async def test_what_others_wrote_into_an_object_survives_a_put(api: KubeApi, kube: FakeKube) -> None:
    owner = {"kind": "Deployment", "name": "router", "uid": "1", "apiVersion": "apps/v1"}
    await kube.put(CONFIG_MAPS, "a", {"metadata": {"finalizers": ["f"], "ownerReferences": [owner]}})
    await api.put(CONFIG_MAPS, await api.get(CONFIG_MAPS, "a"))
    stored = kube.objects["/api/v1/namespaces/default/configmaps/a"]["metadata"]
    assert (stored["finalizers"], stored["ownerReferences"]) == (["f"], [owner])


async def test_a_list_collects_all_pages(api: KubeApi, kube: FakeKube) -> None:
    for number in range(5):
        await api.create(CONFIG_MAPS, config_map(f"c{number}"))
    listed = await api.list(CONFIG_MAPS)
    assert [each.metadata.name for each in listed.items] == [f"c{number}" for number in range(5)]
    assert listed.version == str(kube.version)


async def test_a_selector_is_left_to_the_server(api: KubeApi, kube: FakeKube) -> None:
    await kube.put(ENDPOINT_SLICES, "ours", slice_of("10.0.0.1"))
    await kube.put(ENDPOINT_SLICES, "theirs", slice_of("10.0.0.2", service="db"))
    listed = await api.list(ENDPOINT_SLICES, selector="kubernetes.io/service-name in (sie-worker)")
    assert [each.metadata.name for each in listed.items] == ["ours"]


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (409, Conflict), (410, Gone), (500, KubeError)])
async def test_refusals_are_typed(api: KubeApi, kube: FakeKube, status: int, kind: type[KubeError]) -> None:
    kube.refusing = status
    with pytest.raises(kind) as refused:
        await api.list(CONFIG_MAPS)
    assert refused.value.status == status


async def test_an_api_that_is_down_is_unreachable(api: KubeApi, kube: FakeKube) -> None:
    await kube.stop()
    with pytest.raises(Unreachable):
        await api.list(CONFIG_MAPS)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", kube.port))


async def test_a_follower_sees_the_list_and_then_every_change(api: KubeApi) -> None:
    await api.create(CONFIG_MAPS, config_map("old"))
    async with following(api) as follower:
        await eventually(lambda: follower.names == {"old"})
        await api.create(CONFIG_MAPS, config_map("new"))
        await eventually(lambda: follower.names == {"old", "new"})
        await api.delete(CONFIG_MAPS, "old")
        await eventually(lambda: follower.names == {"new"})
        await api.put(CONFIG_MAPS, config_map("new", key="value"))
        await eventually(lambda: follower.sets[-1]["new"].data == {"key": "value"})


async def test_an_empty_cluster_is_a_set_too(api: KubeApi) -> None:
    async with following(api) as follower:
        await eventually(lambda: follower.names == set())


async def test_what_came_and_went_before_a_410_is_one_change(api: KubeApi, kube: FakeKube) -> None:
    for name in ("stays", "goes"):
        await api.create(CONFIG_MAPS, config_map(name))
    async with following(api) as follower:
        await eventually(lambda: follower.names == {"stays", "goes"} and kube.watches() == 1)
        kube.is_mute = True
        kube.cut()
        await kube.drop(CONFIG_MAPS, "goes")
        await kube.put(CONFIG_MAPS, "comes", {})
        await kube.forget()
        kube.is_mute = False
        kube.cut()
        await eventually(lambda: follower.names == {"stays", "comes"})
        assert len(follower.sets) == 2


async def test_a_410_in_the_middle_of_a_watch_lists_again(api: KubeApi, kube: FakeKube) -> None:
    await api.create(CONFIG_MAPS, config_map("goes"))
    async with following(api) as follower:
        await eventually(lambda: kube.watches() == 1)
        del kube.objects["/api/v1/namespaces/default/configmaps/goes"]  # the watch will not hear of this
        kube.say('{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}')
        await eventually(lambda: follower.names == set())


async def test_a_broken_watch_goes_on_where_it_broke(api: KubeApi, kube: FakeKube) -> None:
    async with following(api) as follower:
        await eventually(lambda: kube.watches() == 1)
        kube.cut()
        await kube.put(CONFIG_MAPS, "new", {})
        await eventually(lambda: follower.names == {"new"})
    assert sum(asked.method == "GET" and "watch" not in asked.query for asked in kube.asked) == 1


async def test_the_last_set_stands_while_the_api_is_away(api: KubeApi, kube: FakeKube) -> None:
    await api.create(CONFIG_MAPS, config_map("a"))
    async with following(api) as follower:
        await eventually(lambda: follower.names == {"a"})
        await kube.stop()
        await kube.put(CONFIG_MAPS, "b", {})
        assert follower.names == {"a"}
        await kube.start()
        await eventually(lambda: follower.names == {"a", "b"})
    assert all("a" in each for each in follower.sets)


async def test_an_api_that_is_away_at_the_start_is_waited_for_and_told_once_with_its_address(
    api: KubeApi, kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    draws: list[float] = []

    def draw() -> float:  # once after each attempt
        draws.append(0)
        return 0

    await kube.stop()
    async with following(api, draw=draw) as follower:
        await eventually(lambda: len(draws) > 3)
        await kube.put(CONFIG_MAPS, "a", {})
        await kube.start()
        await eventually(lambda: follower.names == {"a"})
    [told] = caplog.messages
    assert told.startswith(f"no configmaps yet, {api.url} does not answer")


async def test_a_watch_that_fell_silent_is_begun_again(api: KubeApi, kube: FakeKube) -> None:
    pace = Pace(watch_s=30, silence_s=0.05, first_pause_s=0.01, longest_pause_s=0.02)
    async with following(api, pace) as follower:
        await eventually(lambda: kube.watches() > 2)
        await kube.put(CONFIG_MAPS, "a", {})
        await eventually(lambda: follower.names == {"a"})


async def test_a_bookmark_moves_the_version_and_changes_nothing(api: KubeApi, kube: FakeKube) -> None:
    async with following(api) as follower:
        await eventually(lambda: kube.watches() == 1)
        kube.version = 77
        kube.bookmark()
        kube.end()
        await eventually(lambda: kube.watches() == 2)
    assert kube.asked[-1].query["resourceVersion"] == "77"
    assert len(follower.sets) == 1


async def test_nonsense_in_a_watch_is_survived(api: KubeApi, kube: FakeKube) -> None:
    async with following(api) as follower:
        await eventually(lambda: kube.watches() == 1)
        kube.say("{nonsense")
        await kube.put(CONFIG_MAPS, "a", {})
        await eventually(lambda: follower.names == {"a"})


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    pace = Pace(first_pause_s=0.1, longest_pause_s=10)
    pauses = [pace.backoff_s(failures, 0.999999) for failures in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 10
    assert pace.backoff_s(99, 0.0) == 5


async def test_a_follower_without_a_first_answer_asks_again_within_seconds(api: KubeApi, kube: FakeKube) -> None:
    failures = 0

    def draw() -> float:
        nonlocal failures
        failures += 1
        return 0

    await kube.stop()
    patient = replace(QUICK, longest_pause_s=100 * WAIT_S, longest_first_pause_s=0.02)
    async with following(api, patient, draw=draw) as follower:
        await eventually(lambda: failures > 20)  # doubled each time, the pause would be hours by now
        await kube.put(CONFIG_MAPS, "a", {})
        await kube.start()
        await eventually(lambda: follower.names == {"a"})
    assert Pace().backoff_s(99, 0.999999, is_first=True) <= 2
    assert Pace().backoff_s(99, 0.999999) > 9


async def test_a_token_that_was_rotated_is_read_again(kube: FakeKube, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    api = connect(kubeconfig(tmp_path, kube.port, token))
    assert api.namespace == "sie"
    await api.list(CONFIG_MAPS, namespace="default")
    token.write_text("second")
    kube.refusing = 401
    with pytest.raises(KubeError):
        await api.list(CONFIG_MAPS, namespace="default")
    await api.close()
    assert [asked.headers["authorization"] for asked in kube.asked] == ["Bearer first", "Bearer first", "Bearer second"]


def test_outside_a_cluster_and_without_a_file_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--kubeconfig"):
        connect(None)
    with pytest.raises(ValueError, match="missing"):
        connect(tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "[]", "clusters: 7", "{", "clusters: [7]\ncontexts: []"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"no access to Kubernetes: cannot use '{path}'"):
        connect(path)
