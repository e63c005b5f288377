"""How long after its worker is ready a call at zero is answered: kept by the router, and by sleeping as it says.

`-s` prints the times. SIE_TEST_RETRY_AFTER_S=120 takes the delay of production, minutes for the one that sleeps.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_cluster import LocalCluster, eventually, local_cluster
from sie_sdk import SIEClient, WaitEvent

RETRY_AFTER_S = int(os.environ.get("SIE_TEST_RETRY_AFTER_S", "8"))  # noqa: TID251 - for who measures
LONG_S = max(60, RETRY_AFTER_S)  # what is not slept may be long
CLUSTER = """
router: {replicas: 1, retryAfterSeconds: %d}
workers: {pools: {l4: {minReplicas: 0, maxReplicas: 1}}}
autoscaling: {enabled: true, pollingInterval: 1, cooldownPeriod: 600}
"""
MODEL = "sie/hash-64"
SOON_S = 20.0  # for a busy machine: who sleeps does so for `LONG_S`; on an idle one it is tenths of a second


@contextmanager
def noting_when_ready(cluster: LocalCluster, found: list[float]) -> Iterator[None]:
    """Put the time at which the router first had a healthy worker into `found`."""

    def look() -> None:
        eventually(lambda: cluster.workers("l4"))
        found.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def answered_after_s(retry_after_s: int, folder: Path, env: Mapping[str, str], on_wait: list[WaitEvent]) -> float:
    """Seconds from the worker's readiness to the answer of a call that came before there was a worker."""
    ready: list[float] = []
    with (
        local_cluster(folder, CLUSTER % retry_after_s, env) as cold,
        SIEClient(cold.url, on_wait=on_wait.append) as client,
        noting_when_ready(cold, ready),
    ):
        assert client.encode(MODEL, {"text": "hello"}, gpu="l4", provision_timeout_s=400)["dense"].shape == (64,)
        answered = time.monotonic()
    return answered - ready[0]


@pytest.mark.timeout(450)
def test_a_call_at_zero_is_answered_as_soon_as_its_worker_can_serve(tmp_path: Path) -> None:
    told: list[WaitEvent] = []
    after_s = answered_after_s(LONG_S, tmp_path, {}, told)
    print(f"kept: answered {after_s:.2f} s after the worker was ready")  # noqa: T201 - for who measures
    assert after_s < SOON_S
    assert told[0].reason == "PROVISIONING"
    assert all(event.held for event in told)


@pytest.mark.timeout(450)
def test_a_router_that_keeps_nobody_is_slept_for(tmp_path: Path) -> None:
    told: list[WaitEvent] = []
    after_s = answered_after_s(RETRY_AFTER_S, tmp_path, {"SIE_ROUTER_MAX_WAIT_S": "0"}, told)
    print(f"by sleeping: answered {after_s:.2f} s after the worker was ready")  # noqa: T201 - as above
    assert told[0].reason == "PROVISIONING"
    assert not any(event.held for event in told)
