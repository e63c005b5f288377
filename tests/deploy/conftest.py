"""One prepared chart for the whole run."""

import pytest

from chart_render import Chart, prepared


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return prepared(tmp_path_factory.mktemp("chart"))
