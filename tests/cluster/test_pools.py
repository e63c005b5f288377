"""Pools live in the API: what one router is told, all of them know, whatever happens to routers and to the API."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from kube_cluster import PROFILE, Router, Site, Worker
from lab.api import Api, Refused
from lab.daemon import wait_until

AT_ONCE_S = 1.0
SOON_S = 20.0
BODY = {"name": "tenant", "gpus": {PROFILE: 1}}


def pools(router: Router) -> set[str]:
    return {pool["name"] for pool in router.http.get("/v1/pools").json()["pools"]} - {"default"}


def wait_for(routers: list[Router], *expected: str, within_s: float = SOON_S) -> None:
    wait_until(lambda: all(pools(router) == set(expected) for router in routers), within_s)


@pytest.fixture
def routers(site: Site, workers: list[Worker]) -> list[Router]:
    """Two replicas that know a worker, and have begun to watch."""
    routers = [site.start_router(), site.start_router()]
    site.add(workers[0])
    site.add(workers[1])
    for name in ("warm-up-0", "warm-up-1"):
        assert routers[0].http.post("/v1/pools", json={**BODY, "name": name}).status_code == 201
    wait_for(routers, "warm-up-0", "warm-up-1")
    for name in ("warm-up-0", "warm-up-1"):
        assert routers[1].http.delete(f"/v1/pools/{name}").is_success
    wait_for(routers)
    wait_until(lambda: all(len(router.workers()) == len(workers) for router in routers))
    return routers


def test_a_pool_that_one_router_made_is_usable_on_the_other_at_once(routers: list[Router]) -> None:
    one, other = routers
    assert one.http.post("/v1/pools", json=BODY).status_code == 201
    wait_until(lambda: other.encode(pool="tenant") == 200, AT_ONCE_S)
    assert other.http.post("/v1/pools/tenant/renew").is_success
    assert other.http.delete("/v1/pools/tenant").is_success
    wait_for(routers, within_s=AT_ONCE_S)


def test_both_routers_give_a_pool_the_same_worker(routers: list[Router]) -> None:
    assert routers[0].http.post("/v1/pools", json=BODY).status_code == 201
    wait_for(routers, "tenant")
    wait_until(lambda: len({assigned(router) for router in routers}) == 1, AT_ONCE_S)
    assert len(assigned(routers[0])) == 1


def assigned(router: Router) -> tuple[str, ...]:
    status = router.http.get("/v1/pools/tenant").json()["status"]
    return tuple(worker["url"] for worker in status["assigned_workers"])


def test_routers_that_renew_one_pool_at_the_same_moment_all_succeed(routers: list[Router]) -> None:
    assert routers[0].http.post("/v1/pools", json=BODY).status_code == 201
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: routers[n % 2].http.post("/v1/pools/tenant/renew").status_code, range(8)))
    assert answers == [200] * 8


def test_pools_outlive_an_outage_of_the_api_and_every_router(routers: list[Router], site: Site) -> None:
    assert routers[0].http.post("/v1/pools", json=BODY).status_code == 201
    wait_until(lambda: all(router.encode(pool="tenant") == 200 for router in routers))
    site.kubernetes.stop_api(crash=True)
    assert [router.encode(pool="tenant") for router in routers] == [200, 200]
    refused = routers[0].http.post("/v1/pools", json={**BODY, "name": "too-early"})
    assert refused.status_code == 503
    site.kubernetes.start_api()
    for router in routers:
        router.daemon.kill()
    wait_for([site.start_router()], "tenant")


def test_a_pool_that_changed_before_a_compaction_is_not_missed(routers: list[Router], site: Site) -> None:
    one, other = routers
    assert one.http.post("/v1/pools", json=BODY).status_code == 201
    wait_for(routers, "tenant")
    other.daemon.pause()
    site.kubernetes.restart_api()
    assert one.http.delete("/v1/pools/tenant").is_success
    assert one.http.post("/v1/pools", json={**BODY, "name": "next"}).status_code == 201
    site.kubernetes.etcd.compact()
    site.kubernetes.restart_api()
    other.daemon.resume()
    wait_for([other], "next")


def test_a_pool_that_nobody_renewed_disappears_from_the_api(site: Site) -> None:
    api, name = site.kubernetes.admin, {"name": "sie-pool-forgotten", "labels": {"sie.superlinked.com/type": "pool"}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases"
    configs = f"/api/v1/namespaces/{site.namespace}/configmaps"
    api.create(configs, {"metadata": name, "data": {"spec": '{"gpus": {"l4": 1}}'}})
    api.create(leases, {"metadata": name, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    site.start_router()
    wait_until(lambda: not is_there(api, f"{leases}/sie-pool-forgotten"), SOON_S)
    wait_until(lambda: not is_there(api, f"{configs}/sie-pool-forgotten"), AT_ONCE_S)


def is_there(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except Refused as refused:
        if refused.code != 404:
            raise
        return False
    return True
