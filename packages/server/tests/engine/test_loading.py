import gc
from collections.abc import Sequence
from pathlib import Path

import pytest

from sie_server.adapters.base import Capabilities, Input, LoadError, ModelSpec, Outputs, Prepared, WeightsSource
from sie_server.core.lifecycle import ErrorClass
from sie_server.engine.loading import build, fetch
from sie_server.weights.store import PinnedModel


class FolderAdapter:
    """Loads whatever is at its path, or refuses."""

    capabilities = Capabilities(frozenset({"dense"}))

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def load(self, device: str) -> None:
        if device == "broken":
            raise LoadError(ErrorClass.UNKNOWN, "broken")

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        raise NotImplementedError

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        raise NotImplementedError

    def unload(self) -> None:
        """Nothing."""


def spec(source: WeightsSource) -> ModelSpec:
    return ModelSpec("org/m", source, {}, {})


class Holder:
    """Says which holds are open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[WeightsSource] = []
        self.open = 0

    def __call__(self, source: WeightsSource) -> PinnedModel:
        self.asked.append(source)
        self.open += 1
        done: list[None] = []

        def release() -> None:
            if not done:
                done.append(None)
                self.open -= 1

        return PinnedModel(self.folder, release)


def test_a_model_s_files_are_held_from_its_load_until_its_adapter_is_gone(tmp_path: Path) -> None:
    holder, source = Holder(tmp_path), WeightsSource(hf_id="org/m", allow_pickle=True)
    adapter = build(FolderAdapter, fetch(spec(source), "cpu", holder), "cpu")
    assert holder.asked == [source]
    assert isinstance(adapter, FolderAdapter)
    assert adapter.spec.source.path == str(tmp_path)
    assert adapter.spec.source.allow_pickle
    assert holder.open == 1
    del adapter
    gc.collect()
    assert holder.open == 0


def test_a_load_that_fails_holds_nothing(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    with pytest.raises(LoadError, match="broken"):
        build(FolderAdapter, fetch(spec(WeightsSource(hf_id="org/m")), "cpu", holder), "broken")
    assert holder.open == 0


def test_a_model_that_cannot_even_be_made_holds_nothing(tmp_path: Path) -> None:
    def refuse(_: ModelSpec) -> FolderAdapter:
        raise LoadError(ErrorClass.DEPENDENCY, "a package is missing")

    holder = Holder(tmp_path)
    with pytest.raises(LoadError, match="missing"):
        build(refuse, fetch(spec(WeightsSource(hf_id="org/m")), "cpu", holder), "cpu")
    assert holder.open == 0


def test_a_model_without_weights_asks_for_none(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    build(FolderAdapter, fetch(spec(WeightsSource()), "cpu", holder), "cpu")
    assert not holder.asked
