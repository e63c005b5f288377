"""What users copy from the documentation runs against a real cluster that starts at zero, base URL aside."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import LocalCluster, eventually, local_cluster
from seeded_catalog import write_catalog
from sie_sdk import SIEClient, WaitEvent

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "sdk.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
ADDRESS = "http://sie.example.com"
CLUSTER = """
router: {replicas: 1, retryAfterSeconds: 1}
workers:
  pools:
    l4: {minReplicas: 0, maxReplicas: 3}
    a100-40gb: {minReplicas: 0, maxReplicas: 1}
autoscaling: {enabled: true, pollingInterval: 1, syncPeriod: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("shared")
    with local_cluster(folder, CLUSTER, write_catalog(folder)) as running:
        yield running


@pytest.fixture
def cluster_at_zero(tmp_path: Path) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path, CLUSTER, write_catalog(tmp_path)) as running:
        yield running


@pytest.mark.timeout(600)
def test_every_block_of_the_page_runs_in_its_order(
    cluster_at_zero: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BLOCKS) == 6
    assert not any(each["healthy"] for each in cluster_at_zero.health()["workers"])
    for at, block in enumerate(BLOCKS):
        assert ADDRESS in block
        names: dict[str, Any] = {}
        exec(compile(block.replace(ADDRESS, cluster_at_zero.url), str(PAGE), "exec"), names)  # noqa: S102 - our own page
        if isinstance(client := names.get("client"), SIEClient):
            client.close()
        if at == 0:
            assert names["result"]["dense"].shape == (4096,)
        if "tenant-abc" in block:
            assert names["result"]["dense"].shape == (1024,)
    said = capsys.readouterr().out
    assert "Pool tenant-abc: " in said
    assert "600/600" in said
    assert said.count("(1024,)") == 4


@pytest.mark.timeout(600)
def test_the_command_that_verifies_an_installation_runs(cluster: LocalCluster) -> None:
    [command] = re.findall(r"^python3 -c \".*?^\"$", (DOCS / "deployment/gcp.md").read_text(), re.MULTILINE | re.DOTALL)
    here = command.replace("http://localhost:8080", cluster.url).replace("python3", sys.executable, 1)
    assert subprocess.run(here, shell=True, capture_output=True, text=True, check=True).stdout == "(1024,)\n"  # noqa: S602 - our own page


@pytest.mark.timeout(600)
def test_who_has_the_router_wait_sleeps_through_no_start(tmp_path: Path) -> None:
    patient = CLUSTER.replace("retryAfterSeconds: 1", "retryAfterSeconds: 120")
    told: list[WaitEvent] = []
    with (
        local_cluster(tmp_path, patient, write_catalog(tmp_path)) as cold,
        SIEClient(cold.url, timeout_s=100, base_url_headers={"X-SIE-Wait": "90"}, on_wait=told.append) as client,
    ):
        assert client.encode("BAAI/bge-m3", {"text": "hello"}, gpu="l4")["dense"].shape == (1024,)
    assert told == []


@pytest.mark.timeout(600)
def test_curl_reaches_a_pool_by_two_headers(cluster: LocalCluster) -> None:
    [command] = re.findall(r"^curl .*?}'$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    with SIEClient(cluster.url) as client:
        client.create_pool("tenant-abc", {"l4": 1})
        client.wait_for_capacity("tenant-abc/l4", model="BAAI/bge-m3")
        here = command.replace(ADDRESS, cluster.url) + " --silent --output /dev/null --write-out '%{http_code}'"
        assert subprocess.run(here, shell=True, capture_output=True, text=True, check=True).stdout == "200"  # noqa: S602 - as above
        client.delete_pool("tenant-abc")
        missing = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - as above
        assert missing.stdout == "404"  # so it was the pool that answered


@pytest.mark.timeout(600)
def test_a_reservation_starts_its_workers_without_any_request(cluster: LocalCluster) -> None:
    with SIEClient(cluster.url) as client:
        client.create_pool("early", {"l4": 2})

        def is_complete() -> bool:
            info = client.get_pool("early")
            return info is not None and info["status"]["state"] == "active"

        eventually(is_complete, within_s=60)
        assert client.delete_pool("early") is True
        assert client.get_pool("early") is None
