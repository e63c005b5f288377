"""Every Python block of docs/sdk.md runs against a real cluster that starts at zero, base URL aside."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster import LocalCluster, eventually, local_cluster
from seeded_catalog import write_catalog

PAGE = Path(__file__).parents[2] / "docs/sdk.md"
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
    folder = tmp_path_factory.mktemp("page")
    with local_cluster(folder, CLUSTER, write_catalog(folder)) as running:
        yield running


@pytest.mark.timeout(300)
def test_every_block_of_the_page_runs_in_its_order(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 6
    assert cluster.health()["workers"] == [] or not any(each["healthy"] for each in cluster.health()["workers"])
    for block in BLOCKS:
        assert ADDRESS in block
        exec(compile(block.replace(ADDRESS, cluster.url), str(PAGE), "exec"), {})  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "Pool tenant-abc: " in said
    assert "600/600" in said
    assert said.count("(1024,)") == 4


@pytest.mark.timeout(120)
def test_a_reservation_starts_its_workers_without_any_request(cluster: LocalCluster) -> None:
    from sie_sdk import SIEClient  # noqa: PLC0415 - beside the page's own imports

    with SIEClient(cluster.url) as client:
        client.create_pool("early", {"l4": 2})

        def is_complete() -> bool:
            info = client.get_pool("early")
            return info is not None and info["status"]["state"] == "active"

        eventually(is_complete, within_s=60)
        assert client.delete_pool("early") is True
        assert client.get_pool("early") is None
