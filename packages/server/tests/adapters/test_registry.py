from pathlib import Path

import pytest

from sie_server.adapters.base import LoadError
from sie_server.adapters.registry import ADAPTERS, find
from sie_server.core.lifecycle import ErrorClass


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_of_the_registry_can_be_imported(name: str) -> None:
    assert callable(find(name))


@pytest.mark.parametrize(
    ("missing", "extra"), [("onnxruntime", "onnx"), ("transformers", "transformers"), ("torch", "torch")]
)
def test_an_adapter_without_its_package_names_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str
) -> None:
    (tmp_path / "needy_adapter.py").write_text(f"raise ModuleNotFoundError('no', name='{missing}')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        LoadError, match=rf"'{missing}', which is not installed; install sie-server\[{extra}\]"
    ) as refused:
        find("needy", {"needy": "needy_adapter:Needy"})
    assert refused.value.error_class is ErrorClass.DEPENDENCY


def test_an_unknown_adapter_names_the_known_ones() -> None:
    with pytest.raises(LoadError, match="adapter 'new' is unknown; known: a, b"):
        find("new", {"b": "x:Y", "a": "x:Y"})
