"""Pools against the real API: the same promises as every other store, and two routers that share them."""

import random
from collections.abc import AsyncIterator

import pytest

from kube_cluster import MODEL, Router, Site, Worker
from lab.api import Api, Refused
from lab.daemon import wait_until
from router_pool_contract import PoolStoreContract
from sie_router.control.kube import connect
from sie_router.control.pools import PoolStore
from sie_router.control.pools_kube import KubePools

TENANT = {"name": "tenant", "gpus": {"l4": 1}}
SOON_S = 20.0


class TestKubePools(PoolStoreContract):
    @pytest.fixture
    async def stores(self, site: Site) -> AsyncIterator[tuple[PoolStore, PoolStore]]:
        one, two = connect(site.account.kubeconfig), connect(site.account.kubeconfig)
        yield KubePools(one, random.random), KubePools(two, random.random)
        await one.close()
        await two.close()


def encode(router: Router, pool: str) -> int:
    body = {"items": [{"text": "a test"}]}
    return router.http.post(f"/v1/encode/{MODEL}", json=body, headers={"X-SIE-Pool": pool}).status_code


def serving(router: Router, pool: str) -> set[str]:
    status = router.http.get(f"/v1/pools/{pool}").json()["status"]
    return {worker["url"] for worker in status["assigned_workers"]}


def test_a_pool_made_on_one_router_is_isolated_on_all_at_once(site: Site, workers: list[Worker]) -> None:
    one, two = site.start_router(), site.start_router()
    for worker in workers:
        site.add(worker)
    wait_until(lambda: len(one.workers()) == len(two.workers()) == len(workers))
    assert one.http.post("/v1/pools", json=TENANT).status_code == 201
    assert encode(two, "tenant") == 200  # the next request may come to a router that was not told yet
    wait_until(lambda: two.http.get("/v1/pools").json() == one.http.get("/v1/pools").json(), SOON_S)
    reserved, shared = serving(one, "tenant"), serving(one, "default")
    assert (serving(two, "tenant"), serving(two, "default")) == (reserved, shared)
    assert len(reserved) == len(shared) == 1
    assert reserved.isdisjoint(shared)
    one.daemon.stop()
    assert two.http.post("/v1/pools/tenant/renew").is_success
    assert two.http.delete("/v1/pools/tenant").is_success
    late = site.start_router()
    wait_until(lambda: len(late.workers()) == len(workers))
    assert encode(late, "tenant") == 404


def test_pools_outlive_the_api_and_the_routers(site: Site, workers: list[Worker]) -> None:
    router = site.start_router()
    site.add(workers[0])
    wait_until(lambda: len(router.workers()) == 1)
    assert router.http.post("/v1/pools", json=TENANT).status_code == 201
    site.kubernetes.stop_api(crash=True)
    assert encode(router, "tenant") == 200
    refused = router.http.post("/v1/pools/tenant/renew", timeout=30)
    assert (refused.status_code, refused.headers["x-sie-error-code"]) == (503, "STORE_UNAVAILABLE")
    site.kubernetes.start_api()
    wait_until(lambda: router.http.post("/v1/pools/tenant/renew", timeout=30).is_success)
    late = site.start_router()
    wait_until(lambda: encode(late, "tenant") == 200)


def test_a_pool_that_changed_before_a_compaction_is_not_missed(site: Site, workers: list[Worker]) -> None:
    one, two = site.start_router(), site.start_router()
    site.add(workers[0])
    assert one.http.post("/v1/pools", json=TENANT).status_code == 201
    wait_until(lambda: pools(one) == pools(two) == {"default", "tenant"})
    two.daemon.pause()
    site.kubernetes.restart_api()  # cuts both watches, so that nothing of what follows waits in a socket
    assert one.http.delete("/v1/pools/tenant").is_success
    assert one.http.post("/v1/pools", json={**TENANT, "name": "next"}).status_code == 201
    site.kubernetes.etcd.compact()
    site.kubernetes.restart_api()
    two.daemon.resume()
    wait_until(lambda: pools(two) == {"default", "next"}, SOON_S)


def test_a_pool_that_nobody_renewed_disappears_from_the_api(site: Site) -> None:
    api, name = site.kubernetes.admin, {"name": "sie-pool-forgotten", "labels": {"sie.superlinked.com/type": "pool"}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases"
    configs = f"/api/v1/namespaces/{site.namespace}/configmaps"
    api.create(configs, {"metadata": name, "data": {"spec": '{"gpus": {"l4": 1}}'}})
    api.create(leases, {"metadata": name, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    site.start_router()
    wait_until(lambda: not is_there(api, f"{leases}/sie-pool-forgotten"), SOON_S)
    wait_until(lambda: not is_there(api, f"{configs}/sie-pool-forgotten"), SOON_S)


def pools(router: Router) -> set[str]:
    return {pool["name"] for pool in router.http.get("/v1/pools").json()["pools"]}


def is_there(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except Refused as refused:
        if refused.code != 404:
            raise
        return False
    return True
