"""Who lives keeps its pool, who is killed loses it: real routers that restart, and a real client that dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from local_cluster import eventually, kept_port
from pool_holder import POOL, pool_holder
from sie_sdk import SIEClient

ROUTER = Path(sys.executable).with_name("sie-router")
LEASE_S = 20.0  # a restart is shorter, also on a busy machine
SHORT_LEASE_S = 6.0
BUSY_MACHINE_S = 30.0


@contextmanager
def router(port: int, folder: Path, lease_s: float = LEASE_S) -> Iterator[None]:
    """A router with short leases and a file of pools that outlives it."""
    environment = {
        **os.environ,  # noqa: TID251 - what a child of this test runs in
        "SIE_ROUTER_LEASE_S": str(lease_s),
        "SIE_ROUTER_POOLS_FILE": str(folder / "pools.json"),
        "SIE_ROUTER_CONFIGURED_GPUS": "l4",
    }
    command = [str(ROUTER), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "router.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").is_success)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def renewals(client: SIEClient) -> float:
    """When the pool was last renewed, in Unix seconds."""
    found = client.get_pool("alive")
    assert found is not None, "the pool is gone"
    return found["status"]["last_renewed"]


def test_a_client_alive_keeps_its_pool_through_two_restarts_and_an_outage(tmp_path: Path) -> None:
    with kept_port() as port, SIEClient(address(port)) as client:
        with router(port, tmp_path):
            made = client.create_pool("alive", {"l4": 1})
        for _ in range(2):
            eventually(lambda: client.lease_failures)  # the outage is long enough to be noticed
            with router(port, tmp_path):
                eventually(lambda: not client.lease_failures)
                seen = renewals(client)
                eventually(lambda: renewals(client) > seen, within_s=LEASE_S)  # noqa: B023 - called here
                found = client.get_pool("alive")
                assert found is not None
                assert found["status"]["created_at"] == made["status"]["created_at"]  # kept, not made anew


def test_a_client_that_is_killed_loses_its_pool_within_one_lease(tmp_path: Path) -> None:
    with kept_port() as port, router(port, tmp_path, SHORT_LEASE_S), SIEClient(address(port)) as observer:
        client = pool_holder(address(port))
        client.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        client.wait()
        assert observer.get_pool(POOL) is not None
        eventually(lambda: observer.get_pool(POOL) is None, within_s=SHORT_LEASE_S + BUSY_MACHINE_S)
        assert time.monotonic() - killed >= SHORT_LEASE_S / 2  # it was the lease that ended, not the connection
