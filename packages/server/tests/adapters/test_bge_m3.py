import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import LoadError, ModelSpec, SparseVector, WeightsSource
from sie_server.adapters.bge_m3 import OUTPUTS, BgeM3Adapter
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.selection import select
from tiny_bge_m3 import TOKEN_DIMS, mgte_recipe, recipe, write_bge_m3, write_mgte
from tiny_families import MAX_LENGTH, WIDTH

VOCABULARY = 36
DIMS = {"dense": WIDTH, "sparse": VOCABULARY, "multivector": TOKEN_DIMS}
TEXTS = ["the cat sat", "", "a much longer text: with unknown ÜÄÖ and the the the cat", "x" * 700, "the"]


def adapter(folder: Path, dims: dict[str, int] = DIMS, *, allow_pickle: bool = True) -> BgeM3Adapter:
    source = WeightsSource(path=str(folder), allow_pickle=allow_pickle)
    built = BgeM3Adapter(ModelSpec("org/m3", source, dims, {}))
    built.load("cpu")
    return built


def run(loaded: BgeM3Adapter, texts: list[str], wanted: list[frozenset[str] | None]) -> Any:
    prepared = [replace(each, wanted=own) for each, own in zip(loaded.prepare(texts), wanted, strict=True)]
    return loaded.run(prepared, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bge_m3(tmp_path_factory.mktemp("tiny") / "model")


def test_all_outputs_of_a_batch_equal_the_published_recipe(folder: Path) -> None:
    loaded = adapter(folder)
    found = run(loaded, TEXTS, [None] * len(TEXTS))
    assert set(found) == OUTPUTS
    for at, text in enumerate(TEXTS):
        expected = recipe(folder, text)
        np.testing.assert_allclose(found["dense"][at], expected.dense, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["multivector"][at], expected.multivector, rtol=1e-5, atol=1e-5)
        sparse: SparseVector = found["sparse"][at]
        assert sparse.indices.tolist() == sorted(expected.sparse)
        np.testing.assert_allclose(
            sparse.values, [expected.sparse[each] for each in sparse.indices], rtol=1e-5, atol=1e-5
        )
    assert any(len(each.indices) for each in found["sparse"])  # or equality would say little
    assert loaded.prepare(TEXTS)[3].tokens == MAX_LENGTH


@pytest.fixture(scope="module")
def loaded(folder: Path) -> BgeM3Adapter:
    return adapter(folder)


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sets(st.sampled_from(sorted(OUTPUTS)), min_size=1)), min_size=1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_text_gets_what_it_asks_for_whatever_the_others_of_its_batch_ask_for(
    loaded: BgeM3Adapter, asked: list[tuple[str, set[str]]]
) -> None:
    together = run(loaded, [text for text, _ in asked], [frozenset(wanted) for _, wanted in asked])
    assert set(together) == set().union(*(wanted for _, wanted in asked))
    for at, (text, wanted) in enumerate(asked):
        alone = run(loaded, [text], [None])
        for kind, rows in together.items():
            if kind not in wanted:
                assert rows[at] is None
            elif kind == "sparse":
                assert rows[at].indices.tolist() == alone[kind][0].indices.tolist()
                np.testing.assert_allclose(rows[at].values, alone[kind][0].values, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_allclose(rows[at], alone[kind][0], rtol=1e-5, atol=1e-5)


def test_a_classifier_in_the_checkpoint_weighs_words_as_in_mgte(tmp_path: Path) -> None:
    folder = write_mgte(tmp_path / "model")
    loaded = adapter(folder, {"dense": WIDTH, "sparse": VOCABULARY}, allow_pickle=False)
    found = run(loaded, TEXTS, [None] * len(TEXTS))
    for at, text in enumerate(TEXTS):
        dense, sparse = mgte_recipe(folder, text)
        np.testing.assert_allclose(found["dense"][at], dense, rtol=1e-5, atol=1e-5)
        assert found["sparse"][at].indices.tolist() == sorted(sparse)
        weights = [sparse[each] for each in found["sparse"][at].indices]
        np.testing.assert_allclose(found["sparse"][at].values, weights, rtol=1e-5, atol=1e-5)
    assert any(len(each.indices) for each in found["sparse"])  # or equality would say little


def test_an_output_that_the_catalogue_leaves_out_needs_no_head(tmp_path: Path) -> None:
    folder = write_bge_m3(tmp_path / "model")
    (folder / "colbert_linear.pt").unlink()
    loaded = adapter(folder, {"dense": WIDTH, "sparse": VOCABULARY})
    assert loaded.capabilities.outputs == {"dense", "sparse"}
    assert set(loaded.run(loaded.prepare(["cat"]), 1)) == {"dense", "sparse"}


def test_what_is_fetched_of_a_model_without_pickles_is_all_it_needs(tmp_path: Path, folder: Path) -> None:
    published = write_bge_m3(tmp_path / "published", pickled=False)
    names = [file.relative_to(published).as_posix() for file in published.rglob("*") if file.is_file()]
    for name in select(names, allow_pickle=False):
        (tmp_path / "fetched" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(published / name, tmp_path / "fetched" / name)
    found = run(adapter(tmp_path / "fetched", allow_pickle=False), TEXTS[:1], [None])
    expected = recipe(folder, TEXTS[0])  # the same numbers, pickled
    np.testing.assert_allclose(found["multivector"][0], expected.multivector, rtol=1e-5, atol=1e-5)
    assert found["sparse"][0].indices.tolist() == sorted(expected.sparse)


def test_heads_may_be_safetensors(tmp_path: Path, folder: Path) -> None:
    other = adapter(write_bge_m3(tmp_path / "model", pickled=False), allow_pickle=False)
    expected: Any = adapter(folder).run(adapter(folder).prepare(TEXTS), 1)
    found: Any = other.run(other.prepare(TEXTS), 1)
    for one, two in zip(found["multivector"], expected["multivector"], strict=True):
        np.testing.assert_array_equal(one, two)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("this would have run",)


def with_code(folder: Path) -> None:
    (folder / "sparse_linear.pt").write_bytes(b"cos\nsystem\n(S'echo this would have run'\ntR.")


def saved_code(folder: Path) -> None:
    torch.save({"weight": Evil(), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")


def without_head(folder: Path) -> None:
    (folder / "sparse_linear.pt").unlink()


def wrong_shape(folder: Path) -> None:
    torch.save({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")


def no_tensors(folder: Path) -> None:
    torch.save([1, 2], folder / "sparse_linear.pt")


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        (with_code, ErrorClass.UNKNOWN, "tensors alone"),
        (saved_code, ErrorClass.UNKNOWN, "tensors alone"),
        (without_head, ErrorClass.NOT_FOUND, "no sparse_linear.pt"),
        (wrong_shape, ErrorClass.UNKNOWN, r"'weight' has shape \(1, 7\), not \(1, 32\)"),
        (no_tensors, ErrorClass.UNKNOWN, "other things than named tensors"),
    ],
)
def test_a_head_that_cannot_be_read_says_why_and_never_runs_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, error_class: ErrorClass, named: str
) -> None:
    folder = write_bge_m3(tmp_path / "model")
    damage(folder)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class
    assert "would have run" not in capsys.readouterr().out


def test_published_heads_are_read_only_where_the_catalogue_allows_pickles(folder: Path) -> None:
    with pytest.raises(LoadError, match="allow_pickle: true") as refused:
        adapter(folder, allow_pickle=False)
    assert refused.value.error_class is ErrorClass.DEPENDENCY


@pytest.mark.parametrize("output", sorted(OUTPUTS))
def test_a_catalogue_that_does_not_fit_is_found_at_load(folder: Path, output: str) -> None:
    with pytest.raises(LoadError, match=f"{output} vectors of .*the catalogue says 7"):
        adapter(folder, {**DIMS, output: 7})
