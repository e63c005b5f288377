"""Who lives keeps its pool, who is killed loses it: real routers that keep pools in a real API, and the real client."""

import signal
import threading
import time

from kube_cluster import MODEL, Site, Worker
from lab.daemon import wait_until
from pool_holder import POOL, pool_holder
from sie_sdk import SIEClient

LEASE_S = 30.0  # a restart, and the outage below, are shorter, also on a busy machine
SHORT_LEASE_S = 6.0
BUSY_MACHINE_S = 30.0


def test_a_client_alive_keeps_its_pool_through_two_router_restarts_and_an_outage_of_the_api(
    site: Site, workers: list[Worker]
) -> None:
    router = site.start_router(lease_s=LEASE_S)
    site.add(workers[0])
    before = set(threading.enumerate())
    with SIEClient(router.url) as client:
        made = client.create_pool("tenant", {"l4": 1})

        def assert_kept() -> None:
            wait_until(lambda: not client.lease_failures, LEASE_S)
            found = client.get_pool("tenant")
            assert found is not None
            assert found["status"]["created_at"] == made["status"]["created_at"]  # kept, not made anew
            assert client.encode(MODEL, {"text": "a test"}, gpu="tenant/l4")["dense"].shape == (64,)

        assert_kept()
        for _ in range(2):
            router.daemon.kill()
            wait_until(lambda: bool(client.lease_failures), LEASE_S)  # it was away for long enough to be missed
            router = site.start_router(port=router.port, lease_s=LEASE_S)
            assert_kept()

        began = time.monotonic()
        site.kubernetes.stop_api(crash=True)
        wait_until(lambda: bool(client.lease_failures), LEASE_S)
        assert client.lease_failures["tenant"].code == "STORE_UNAVAILABLE"
        assert client.encode(MODEL, {"text": "a test"}, gpu="tenant/l4")["dense"].shape == (64,)  # it serves on
        site.kubernetes.start_api()
        assert time.monotonic() - began < LEASE_S
        assert_kept()
    assert set(threading.enumerate()) <= before


def test_a_client_that_is_killed_loses_its_pool_within_one_lease(site: Site) -> None:
    router = site.start_router(lease_s=SHORT_LEASE_S)
    with SIEClient(router.url) as observer:
        client = pool_holder(router.url)
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases"
        assert names(site, leases) == ["sie-pool-killed"]
        time_alive = time.monotonic() + SHORT_LEASE_S  # it lives on while its client does
        wait_until(lambda: time.monotonic() > time_alive, SHORT_LEASE_S + BUSY_MACHINE_S)
        assert observer.get_pool(POOL) is not None
        client.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        client.wait()
        wait_until(lambda: observer.get_pool(POOL) is None, SHORT_LEASE_S + BUSY_MACHINE_S)
        assert time.monotonic() - killed >= SHORT_LEASE_S / 2  # it was the lease that ended, not the connection
        wait_until(lambda: names(site, leases) == [], SHORT_LEASE_S + BUSY_MACHINE_S)


def names(site: Site, collection: str) -> list[str]:
    return [each["metadata"]["name"] for each in site.kubernetes.admin.get(collection)["items"]]
