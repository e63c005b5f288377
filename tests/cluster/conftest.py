"""One real Kubernetes API and two real workers for the whole run; one namespace for each test."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from chart_api import add_kinds
from kube_cluster import ROLE, Site, Worker, run_workers
from lab import control_plane
from lab.control_plane import Kubernetes
from sie_cli.ports import Ports


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Generator[Kubernetes]:
    with control_plane.kubernetes(tmp_path_factory.mktemp("kubernetes")) as plane:
        yield plane


@pytest.fixture(scope="session")
def cluster(kubernetes: Kubernetes) -> Kubernetes:
    """The same, with the kinds of the chart and its namespace."""
    add_kinds(kubernetes)
    return kubernetes


@pytest.fixture(scope="session")
def ports() -> Generator[Ports]:
    with closing(Ports()) as ports:
        yield ports


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Generator[list[Worker]]:
    with run_workers(2, tmp_path_factory.mktemp("workers"), ports) as workers:
        yield workers


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> str:
    kubernetes.start_api()  # a test that failed in the middle of an outage must not fail the others
    created = kubernetes.admin.create("/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
    return str(created["metadata"]["name"])


@pytest.fixture
def site(kubernetes: Kubernetes, namespace: str, ports: Ports, tmp_path: Path) -> Generator[Site]:
    account = kubernetes.service_account(namespace, "router")
    kubernetes.bind(account, yaml.safe_load(ROLE.read_text())["rules"])
    with closing(Site(kubernetes, namespace, account, ports, tmp_path)) as site:
        yield site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for fixture in (item.funcargs.get("site"), item.funcargs.get("kubernetes")):
            if isinstance(fixture, Site | Kubernetes):
                report.sections.append((type(fixture).__name__, fixture.tail()))
    return report
