"""One Prometheus for the run."""

import os
from collections.abc import Iterator

import pytest

from prometheus_server import BINARY, Prometheus, prometheus


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if BINARY is None and "CI" not in os.environ:  # noqa: TID251 - continuous integration must not skip
        pytest.skip("needs the command prometheus (Debian: apt install prometheus)")
    with prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running
