"""How a pool grows, shrinks and is shared on a real cluster: KEDA decides, Kubernetes acts, and nothing is lost."""

from contextlib import ExitStack

import pytest

from cluster_load import Load, Timeline
from deployed import ITEM, MODEL, POOL, Release
from sie_sdk import SIEClient
from sie_sdk.types import Item

LONG: Item = {"text": "the quick brown fox jumps over the lazy dog " * 20}
TENANTS = {"tenant-a": 2, "tenant-b": 1}
BUSY = 14  # requests at once that are too many for one worker: the router makes another one load the model
QUIET_S = 15  # three times the cooldown


@pytest.mark.timeout(900)
def test_a_pool_grows_under_load_and_shrinks_after_it_and_no_request_is_lost(
    release: Release, timeline: Timeline
) -> None:
    with SIEClient(release.url) as client:
        client.encode(MODEL, ITEM, gpu=POOL, wait_for_capacity=True, provision_timeout_s=300)
    release.wait_until_workers(1)
    timeline.start()
    with Load(release.url, MODEL, LONG, at_once=3 * BUSY, profile=POOL) as heavy:
        release.wait_until_workers(3)
        timeline.mark("three workers are Ready")
        release.wait_until(lambda: len(heavy.workers) == 3)
        timeline.mark("all three answer; the load ends")
    with Load(release.url, MODEL, ITEM, at_once=1, profile=POOL, every_s=0.2) as light:
        release.wait_until_workers(1)
        timeline.mark("one worker is left, which answers a light load")
    assert (heavy.failures, light.failures) == ([], [])
    assert heavy.answered > 0
    assert light.answered > 0


@pytest.mark.timeout(900)
def test_reservations_keep_their_workers_and_tenants_never_mix(release: Release) -> None:
    release.wait_until_empty()
    with SIEClient(release.url) as client, ExitStack() as pools:
        for name, workers in TENANTS.items():
            client.create_pool(name, {POOL: workers})
            pools.callback(client.delete_pool, name)
            client.encode(MODEL, ITEM, gpu=f"{name}/{POOL}", wait_for_capacity=True, provision_timeout_s=300)
        release.wait_until_workers(sum(TENANTS.values()))
        release.wait_until(lambda: {name: len(assigned(client, name)) for name in TENANTS} == TENANTS)
        with (
            Load(release.url, MODEL, LONG, at_once=BUSY, profile=POOL, pool="tenant-a") as one,
            Load(release.url, MODEL, ITEM, at_once=2, profile=POOL, pool="tenant-b") as other,
        ):
            release.wait_until(lambda: len(one.workers) == 2 and other.answered > 100)
        served = {"tenant-a": one.workers, "tenant-b": other.workers}
        assert (one.failures, other.failures) == ([], [])
        assert served == {name: assigned(client, name) for name in TENANTS}
        assert served["tenant-a"].isdisjoint(served["tenant-b"])
        idle = f'max_over_time(sum(sie_router_recent_requests{{namespace="{release.namespace}"}})[{QUIET_S}s:1s])'
        release.wait_until(lambda: release.query(idle) == [0])
        assert release.replicas() == sum(TENANTS.values())
    release.wait_until_empty()


def assigned(client: SIEClient, pool: str) -> set[str]:
    info = client.get_pool(pool)
    assert info is not None
    return {each["name"] for each in info["status"]["assigned_workers"]}
