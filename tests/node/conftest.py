"""A whole cluster for the run, with our images, Prometheus, KEDA and a bucket of models: `lab` and `release`.

    sudo make test-node                 # starts one, runs these tests, removes all of it
    sudo make lab-up                    # or keep one while you write tests, and run them in it as often as you like:
    sudo make lab-shell                 # then: .venv/bin/pytest tests/node -k name
    sudo make lab-down

`lab` is what an administrator has: `lab.kubectl(...)`, `lab.helm(...)`, `lab.api` (an `Api`),
`with lab.prometheus_gone():`.
`release` is our chart, installed once for the run by `helm upgrade --install` with the quickstart's values, a pool
`cpu` of 0 to 3 workers and short times (`deployed.VALUES`): `release.url`, `release.upgrade({...})`,
`release.workers()`, `release.wait_until_empty()`, `release.forwarded()`. Tests share it and leave it as it was
(`release.upgrade()` restores the values). For one of your own use `Release(lab, chart, namespace)`, without KEDA
(`{"keda": {"install": False}}`), since a cluster has one. The `chart` is assembled from the clone when the run starts;
images are those of `make lab-images`.
"""

import os
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chart_render import Chart, prepared
from cluster_load import Timeline
from deployed import Release
from lab.whole import CHARTS, Lab, whole

TIMELINES = pytest.StashKey[list[tuple[str, Timeline]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outage-seconds", type=float, default=40.0, help="how long Prometheus is gone")


@pytest.fixture(scope="session")
def outage_s(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--outage-seconds"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    running = os.environ.get("SIE_LAB")  # noqa: TID251 - how `make lab-shell` says which
    with ExitStack() as stack:
        state = Path(running) if running else stack.enter_context(whole(tmp_path_factory.mktemp("lab")))
        yield stack.enter_context(Lab.attached(state))


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return prepared(tmp_path_factory.mktemp("chart"), CHARTS)


@pytest.fixture(scope="session")
def release(lab: Lab, chart: Chart) -> Generator[Release]:
    release = Release(lab, chart)
    release.upgrade()
    yield release
    release.close()


@pytest.fixture
def timeline(request: pytest.FixtureRequest) -> Timeline:
    """When what happened in this test; printed at the end of the run."""
    timeline = Timeline()
    request.config.stash.setdefault(TIMELINES, []).append((request.node.name, timeline))
    return timeline


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, timeline in config.stash.get(TIMELINES, []):
        terminalreporter.write_sep("-", name)
        terminalreporter.write_line(timeline.table())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    release = item.funcargs.get("release")
    if report.failed and isinstance(release, Release):
        report.sections.append(("the cluster", release.tail()))
    return report
