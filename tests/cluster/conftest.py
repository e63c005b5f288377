"""One real Kubernetes API for the whole run, one namespace for each test."""

from collections.abc import Generator

import pytest

from lab import control_plane
from lab.control_plane import Kubernetes


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Generator[Kubernetes]:
    with control_plane.kubernetes(tmp_path_factory.mktemp("kubernetes")) as plane:
        yield plane


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> str:
    created = kubernetes.admin.create("/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
    return str(created["metadata"]["name"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    plane = item.funcargs.get("kubernetes")
    if report.failed and isinstance(plane, Kubernetes):
        report.sections.append(("kubernetes", plane.tail()))
    return report
