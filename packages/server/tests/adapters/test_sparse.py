from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, SparseVector, WeightsSource
from sie_server.adapters.sparse import SparseAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import WORDS
from tiny_heads import TEXTS, VOCABULARY, mlm_weights, tokenizer, write_json, write_mlm

SPECIALS = [VOCABULARY.index(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]


def adapter(
    folder: Path, *, dim: int = len(VOCABULARY), max_length: int | None = None, **options: Any
) -> SparseAdapter:
    made = SparseAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"sparse": dim}, options, max_length))
    made.load("cpu")
    return made


def rows(loaded: SparseAdapter, texts: Sequence[str], *, is_query: bool = False) -> list[SparseVector]:
    return list(loaded.run(loaded.prepare(texts, is_query=is_query), threads=1)["sparse"])


def full(vectors: Sequence[SparseVector]) -> Array:
    table = np.zeros((len(vectors), len(VOCABULARY)), np.float32)
    for row, vector in enumerate(vectors):
        assert (str(vector.indices.dtype), str(vector.values.dtype)) == ("int32", "float32")
        assert (np.diff(vector.indices) > 0).all()
        assert (vector.values > 0).all()
        table[row, vector.indices] = vector.values
    return table


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "gte"])
@pytest.mark.parametrize("old_norm_names", [False, True])
def test_weights_equal_those_of_transformers(tmp_path: Path, kind: str, old_norm_names: bool) -> None:
    folder = write_mlm(tmp_path / "model", kind=kind, old_norm_names=old_norm_names and kind == "bert")
    texts = [*TEXTS, " ".join(TEXTS * 4)]  # the last one is longer than one piece of logits
    np.testing.assert_allclose(
        full(rows(adapter(folder), texts)), mlm_weights(folder, texts, kind=kind), rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> SparseAdapter:
    return adapter(write_mlm(tmp_path_factory.mktemp("tiny") / "model"))


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=90).map(" ".join), min_size=1, max_size=7))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_does_not_depend_on_its_batch(loaded: SparseAdapter, texts: list[str]) -> None:
    alone = np.concatenate([full(rows(loaded, [text])) for text in texts])
    np.testing.assert_allclose(full(rows(loaded, texts)), alone, rtol=1e-5, atol=1e-5)


def test_the_markers_around_a_text_count_as_tokens_of_it(tmp_path: Path) -> None:
    folder = write_mlm(tmp_path / "model", seed=3)
    empty = rows(adapter(folder), [""])  # [CLS] and [SEP], and nothing else
    assert len(empty[0].indices) > 0
    np.testing.assert_allclose(full(empty), mlm_weights(folder, [""]), rtol=1e-5, atol=1e-5)


def test_the_logarithm_may_be_taken_twice_and_special_words_left_out(tmp_path: Path) -> None:
    folder = write_mlm(tmp_path / "model")
    expected = np.log1p(mlm_weights(folder, TEXTS))
    expected[:, SPECIALS] = 0
    np.testing.assert_allclose(
        full(rows(adapter(folder, log1p=2, drop_special=True), TEXTS)), expected, rtol=1e-5, atol=1e-5
    )


def test_texts_are_cut_at_the_catalogue_s_length(tmp_path: Path) -> None:
    folder = write_mlm(tmp_path / "model")
    cut = adapter(folder, max_length=5)
    np.testing.assert_allclose(full(rows(cut, TEXTS)), mlm_weights(folder, TEXTS, max_length=5), rtol=1e-5, atol=1e-5)
    assert [each.truncated for each in cut.prepare(["the cat sat", "the cat sat on"])] == [False, True]


def test_a_query_side_without_a_model_weighs_the_words_a_query_holds(tmp_path: Path) -> None:
    folder = write_mlm(tmp_path / "model")
    write_json(folder / "idf.json", {"cat": 2.5, "the": 0.25, "dogs": 4.0, "##ning": 1.5, "sat": 0})
    both = adapter(folder, query_weights="idf.json")
    query, doc = both.prepare(["the cat sat , the running cat"], is_query=True) + both.prepare(["the cat"])
    sparse: Any = both.run([doc, query, doc], threads=1)["sparse"]
    assert {VOCABULARY[at]: weight for at, weight in zip(sparse[1].indices, sparse[1].values, strict=True)} == {
        "the": 0.25,
        "cat": 2.5,
        "##ning": 1.5,
    }
    expected = mlm_weights(folder, ["the cat"])
    np.testing.assert_allclose(full([sparse[0], sparse[2]]), np.concatenate([expected] * 2), rtol=1e-5, atol=1e-5)
    assert query.tokens == len(tokenizer().encode("the cat sat , the running cat").ids)
    assert full(rows(both, [""], is_query=True)).sum() == 0


def test_queries_of_other_models_are_read_like_documents(loaded: SparseAdapter) -> None:
    np.testing.assert_array_equal(full(rows(loaded, TEXTS, is_query=True)), full(rows(loaded, TEXTS)))


@pytest.mark.parametrize(
    ("options", "error_class", "named"),
    [
        ({"dim": 7}, ErrorClass.UNKNOWN, f"{len(VOCABULARY)} components, the catalogue says 7"),
        ({"log1p": 3}, ErrorClass.UNKNOWN, "log1p is 3"),
        ({"query_weights": "idf.json"}, ErrorClass.NOT_FOUND, "no idf.json"),
        ({"query_weights": "bad.json"}, ErrorClass.UNKNOWN, "'zebra' the weight 1.0"),
    ],
)
def test_what_cannot_be_served_says_why(
    tmp_path: Path, options: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    folder = write_mlm(tmp_path / "model")
    write_json(folder / "bad.json", {"zebra": 1.0})
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder, **options)
    assert refused.value.error_class is error_class


def test_a_checkpoint_without_the_head_names_the_tensor(tmp_path: Path) -> None:
    from tiny_bert import write_checkpoint  # noqa: PLC0415 - only here

    with pytest.raises(LoadError, match=r"'cls\.predictions\.transform\.dense\.weight' is missing"):
        adapter(write_checkpoint(tmp_path / "model"))
