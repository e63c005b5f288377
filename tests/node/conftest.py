"""One whole Kubernetes for the run, in namespaces of its own: `make test-node`."""

from collections.abc import Generator

import pytest

from lab import node
from lab.node import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with node.cluster(tmp_path_factory.mktemp("node")) as cluster:
        yield cluster
