import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, status
from router_fakes import Exchange, FakeWorker, eventually, served, settings
from router_kube import FakeKube, kubeconfig, slice_of
from sie_router.app import RouterApp
from sie_router.control.discovery import Endpoints
from sie_router.control.discovery_kube import endpoints_of
from sie_router.control.kube_objects import (
    ENDPOINT_SLICES,
    Conditions,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Meta,
    Target,
)
from sie_router.settings import Kubernetes, Settings

MakeWorker = Callable[..., Awaitable[FakeWorker]]


def endpoint(address: str, uid: str = "", *, terminating: bool | None = None, ready: bool | None = None) -> Endpoint:
    target = Target(uid=uid) if uid else None
    conditions = Conditions(ready=ready, terminating=terminating)
    return Endpoint(addresses=(address,), conditions=conditions, target_ref=target)


def endpoint_slice(*endpoints: Endpoint, name: str = "s", family: str = "IPv4", port: int = 80) -> EndpointSlice:
    ports = (EndpointPort(name="http", port=port),)
    return EndpointSlice(metadata=Meta(name=name), address_type=family, endpoints=endpoints, ports=ports)


def test_an_endpoint_serves_until_it_terminates_ready_or_not() -> None:
    found = endpoints_of(
        [
            endpoint_slice(
                endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False), endpoint("10.0.0.3", terminating=True)
            )
        ],
        "8080",
    )
    assert found == Endpoints(
        frozenset({"http://10.0.0.1:8080", "http://10.0.0.2:8080"}), frozenset({"http://10.0.0.3:8080"})
    )


def test_a_port_may_be_named_and_then_each_slice_has_its_own() -> None:
    slices = [endpoint_slice(endpoint("10.0.0.1"), port=1), endpoint_slice(endpoint("10.0.0.2"), port=2)]
    assert endpoints_of(slices, "http").serving == {"http://10.0.0.1:1", "http://10.0.0.2:2"}
    assert endpoints_of(slices, "grpc") == Endpoints()


def test_a_pod_of_a_dual_stack_service_is_one_worker() -> None:
    slices = [
        endpoint_slice(endpoint("fd00::1", "pod-1"), name="six", family="IPv6"),
        endpoint_slice(endpoint("10.0.0.1", "pod-1"), name="four"),
    ]
    assert endpoints_of(slices, "80").serving == {"http://10.0.0.1:80"}
    assert endpoints_of(slices[:1], "80").serving == {"http://[fd00::1]:80"}


def test_an_address_that_passed_to_another_pod_serves() -> None:
    slices = [endpoint_slice(endpoint("10.0.0.1", "old", terminating=True), endpoint("10.0.0.1", "new"))]
    assert endpoints_of(slices, "80") == Endpoints(frozenset({"http://10.0.0.1:80"}))


pods = st.lists(
    st.builds(
        lambda number, terminating, ready: endpoint(
            f"10.0.0.{number}", f"pod-{number}", terminating=terminating, ready=ready
        ),
        st.integers(1, 6),
        st.sampled_from([None, False, True]),
        st.sampled_from([None, False, True]),
    ),
    max_size=10,
)


@given(pods, st.randoms(use_true_random=False), st.integers(1, 4))
def test_how_endpoints_are_spread_over_slices_is_irrelevant(
    found: list[Endpoint], shuffler: random.Random, count: int
) -> None:
    dealt: list[list[Endpoint]] = [[] for _ in range(count)]
    for each in found:
        dealt[shuffler.randrange(count)].append(each)
    one = endpoints_of([endpoint_slice(*found)], "80")
    assert endpoints_of([endpoint_slice(*some, name=str(number)) for number, some in enumerate(dealt)], "80") == one
    assert not one.serving & one.leaving
    assert one.serving | one.leaving == {f"http://{each.addresses[0]}:80" for each in found}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    server = await FakeKube().start()
    yield server
    await server.close()


def in_cluster(kube: FakeKube, folder: Path) -> Settings:
    where = Kubernetes("default", ("sie-worker", "sie-spot"), "http", kubeconfig(folder, kube.port))
    return replace(settings(), kubernetes=where)


async def test_endpoints_that_come_and_go_reach_routing(
    kube: FakeKube, make_worker: MakeWorker, tmp_path: Path
) -> None:
    one, two = await make_worker(status("one")), await make_worker(status("two"))
    await kube.put(ENDPOINT_SLICES, "a", slice_of("127.0.0.1", port=one.port))
    async with served(in_cluster(kube, tmp_path)) as router:
        await eventually(lambda: router.healthy() == 1)
        await kube.put(ENDPOINT_SLICES, "b", slice_of("127.0.0.1", service="sie-spot", port=two.port))
        await eventually(lambda: router.healthy() == 2)
        await kube.put(ENDPOINT_SLICES, "a", slice_of("127.0.0.1", port=one.port, terminating=True))
        await eventually(lambda: router.healthy() == 1)
        assert router.app.store.snapshot().workers[one.url].is_draining
        await kube.drop(ENDPOINT_SLICES, "a")
        await eventually(lambda: set(router.app.store.snapshot().workers) == {two.url})
        await kube.put(ENDPOINT_SLICES, "other", slice_of("127.0.0.1", service="db", port=one.port))
        await kube.drop(ENDPOINT_SLICES, "b")
        await eventually(lambda: not router.app.store.snapshot().workers)


async def test_a_request_under_way_outlives_its_worker_s_endpoint(
    kube: FakeKube, make_worker: MakeWorker, tmp_path: Path
) -> None:
    release = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply(200, b"done")

    worker = await make_worker(status("one"), slow)
    await kube.put(ENDPOINT_SLICES, "a", slice_of("127.0.0.1", port=worker.port))
    async with served(in_cluster(kube, tmp_path)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        request = asyncio.create_task(client.post("/v1/encode/m", content=b"{}"))
        await eventually(lambda: len(worker.seen) == 1)
        await kube.put(ENDPOINT_SLICES, "a", slice_of("127.0.0.1", port=worker.port, terminating=True))
        await eventually(lambda: router.healthy() == 0)
        assert (await client.post("/v1/encode/m", content=b"{}")).status_code == 202
        await kube.drop(ENDPOINT_SLICES, "a")
        await eventually(lambda: not router.app.store.snapshot().workers)
        release.set()
        assert (await request).content == b"done"
    assert len(worker.seen) == 1


async def test_neither_an_absent_api_nor_its_loss_costs_a_worker(
    kube: FakeKube, make_worker: MakeWorker, tmp_path: Path
) -> None:
    worker = await make_worker(status("one"))
    await kube.put(ENDPOINT_SLICES, "a", slice_of("127.0.0.1", port=worker.port))
    where = in_cluster(kube, tmp_path)
    await kube.stop()
    async with served(where) as router:
        assert router.healthy() == 0
        await kube.start()
        await eventually(lambda: router.app.store.snapshot().has_healthy(L4))
        await kube.stop()
        await eventually(lambda: not kube.writers)
        assert router.healthy() == 1


def test_without_access_to_a_cluster_the_router_says_so(tmp_path: Path) -> None:
    where = replace(settings(), kubernetes=Kubernetes(kubeconfig=tmp_path / "none"))
    with pytest.raises(ValueError, match="no access to Kubernetes"):
        RouterApp(where, lambda _: None)
