from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from served_worker import served, write_catalog
from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.colbert import ColbertAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import WIDTH, WORDS
from tiny_heads import TEXTS, VOCABULARY, colbert_vectors, tokenizer, write_colbert, write_json

DIMS = 24
LENGTH = 12  # of queries


def adapter(folder: Path, *, dim: int = DIMS, max_length: int | None = None, **options: Any) -> ColbertAdapter:
    spec = ModelSpec(
        "org/tiny",
        WeightsSource(path=str(folder)),
        {"multivector": dim},
        {"query_length": LENGTH, **options},
        max_length,
    )
    made = ColbertAdapter(spec)
    made.load("cpu")
    return made


def vectors(loaded: ColbertAdapter, texts: Sequence[str], *, is_query: bool = False) -> list[Array]:
    rows: Any = loaded.run(loaded.prepare(texts, is_query=is_query), threads=1)["multivector"]
    return list(rows)


def ids_of(*words: str) -> list[int]:
    return [VOCABULARY.index(word) for word in words]


def marked(text: str, marker: str, length: int) -> list[int]:
    """The published recipe: special tokens around a text that is cut, and the marker behind the first of them."""
    ids = tokenizer(length - 1).encode(text).ids
    return [ids[0], VOCABULARY.index(marker), *ids[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colbert(tmp_path_factory.mktemp("tiny") / "model")


def test_a_query_is_marked_and_filled_with_masks_that_are_kept_but_not_seen(folder: Path) -> None:
    (query,) = adapter(folder).prepare(["the cat !"], is_query=True)
    words = ("[CLS]", "[unused0]", "the", "cat", "!", "[SEP]")
    assert query.payload.ids.tolist() == ids_of(*words) + ids_of("[MASK]") * 6
    assert (query.payload.key_length, query.tokens, query.truncated) == (6, LENGTH, False)
    assert query.payload.kept.all()


def test_a_query_is_cut_so_that_its_marker_and_end_have_a_place(folder: Path) -> None:
    (query,) = adapter(folder, query_length=5).prepare(["the cat sat on a mat"], is_query=True)
    assert query.payload.ids.tolist() == ids_of("[CLS]", "[unused0]", "the", "cat", "[SEP]")
    assert (query.payload.key_length, query.truncated) == (5, True)


def test_a_query_is_as_long_as_its_text_where_it_is_not_expanded(folder: Path) -> None:
    (query,) = adapter(folder, query_expansion=False).prepare(["cat ,"], is_query=True)
    assert query.payload.ids.tolist() == ids_of("[CLS]", "[unused0]", "cat", ",", "[SEP]")
    assert query.payload.kept.all()


def test_a_document_is_marked_and_loses_the_vectors_of_its_punctuation_only(folder: Path) -> None:
    (document,) = adapter(folder).prepare(["two dogs , cat's # [PAD] ?"])
    words = ("[CLS]", "[unused1]", "two", "dogs", ",", "cat", "'", "[UNK]", "#", "[PAD]", "?", "[SEP]")
    assert document.payload.ids.tolist() == ids_of(*words)
    assert document.payload.key_length == len(words)
    kept = [word for word, is_kept in zip(words, document.payload.kept, strict=True) if is_kept]
    assert kept == ["[CLS]", "[unused1]", "two", "dogs", "cat", "[UNK]", "[SEP]"]
    (whole,) = adapter(folder, skip_punctuation=False).prepare(["two , cat"])
    assert whole.payload.kept.all()


def test_other_markers_may_be_named(folder: Path) -> None:
    loaded = adapter(folder, query_marker="the", doc_marker="cat")
    assert loaded.prepare(["a"], is_query=True)[0].payload.ids[1] == VOCABULARY.index("the")
    assert loaded.prepare(["a"])[0].payload.ids[1] == VOCABULARY.index("cat")


@pytest.mark.parametrize("expansion", [True, False])
def test_query_vectors_equal_those_of_transformers(folder: Path, expansion: bool) -> None:
    found = vectors(adapter(folder, query_expansion=expansion), TEXTS, is_query=True)
    for text, matrix in zip(TEXTS, found, strict=True):
        ids = marked(text, "[unused0]", LENGTH)
        filling = LENGTH - len(ids) if expansion else 0
        attended = [1] * len(ids) + [0] * filling
        expected = colbert_vectors(folder, ids + ids_of("[MASK]") * filling, attended)
        np.testing.assert_allclose(matrix, expected, atol=1e-5)
        assert matrix.shape == (LENGTH if expansion else len(ids), DIMS)


def test_document_vectors_equal_those_of_transformers(folder: Path) -> None:
    texts = [*TEXTS, " ".join(TEXTS * 4)]
    skipped = ids_of(",", ".", "!", "'", "#", "?")
    for text, matrix in zip(texts, vectors(adapter(folder, max_length=300), texts), strict=True):
        ids = marked(text, "[unused1]", 300)
        expected = colbert_vectors(folder, ids, [1] * len(ids))[[each not in skipped for each in ids]]
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, expected, atol=1e-5)


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)), min_size=1, max_size=7
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_vectors_do_not_depend_on_their_batch_even_if_it_mixes_queries_and_documents(
    folder: Path, inputs: list[tuple[bool, str]]
) -> None:
    loaded = adapter(folder)
    prepared = [loaded.prepare([text], is_query=is_query)[0] for is_query, text in inputs]
    together: Any = loaded.run(prepared, threads=1)["multivector"]
    for each, found in zip(prepared, together, strict=True):
        alone: Any = loaded.run([each], threads=1)["multivector"]
        np.testing.assert_allclose(found, alone[0], atol=1e-5)


def as_modules(folder: Path, *steps: torch.Tensor, kind: str = "Dense") -> Path:
    """The same model with its projection in modules of their own."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("linear.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    for at, step in enumerate(steps, 1):
        (folder / f"{at}_Dense").mkdir()
        save_file({"linear.weight": step.contiguous()}, folder / f"{at}_Dense" / "model.safetensors")
        identity = "torch.nn.modules.linear.Identity"
        write_json(folder / f"{at}_Dense" / "config.json", {"bias": False, "activation_function": identity})
        modules.append({"type": f"pylate.models.{kind}.{kind}", "path": f"{at}_Dense"})
    write_json(folder / "modules.json", modules)
    return folder


def test_a_chain_of_dense_modules_is_the_same_projection(tmp_path: Path, folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")["linear.weight"]
    first = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    modular = as_modules(write_colbert(tmp_path / "model"), first, whole @ first.t())
    for found, expected in zip(vectors(adapter(modular), TEXTS), vectors(adapter(folder), TEXTS), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def no_projection(folder: Path) -> None:
    as_modules(folder)


def pooling_module(folder: Path) -> None:
    as_modules(folder, torch.randn(DIMS, WIDTH), kind="Pooling")


def wrong_width(folder: Path) -> None:
    as_modules(folder, torch.randn(DIMS, 7))


def activation(folder: Path) -> None:
    as_modules(folder, torch.randn(DIMS, WIDTH))
    write_json(folder / "1_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Softplus"})


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        (no_projection, ErrorClass.UNKNOWN, "neither 'linear.weight' nor Dense modules"),
        (pooling_module, ErrorClass.DEPENDENCY, "modules Pooling"),
        (wrong_width, ErrorClass.UNKNOWN, "reads 32 components"),
        (activation, ErrorClass.DEPENDENCY, "Softplus"),
    ],
)
def test_a_projection_that_cannot_be_computed_says_why(
    tmp_path: Path, damage: Any, error_class: ErrorClass, named: str
) -> None:
    made = write_colbert(tmp_path / "model")
    damage(made)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(made)
    assert refused.value.error_class is error_class


@pytest.mark.parametrize(
    ("options", "named"),
    [({"dim": 7}, f"{DIMS} components, the catalogue says 7"), ({"query_marker": "[Q] "}, r"no token '\[Q\] '")],
)
def test_a_catalogue_that_does_not_fit_is_found_at_load(folder: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(LoadError, match=named):
        adapter(folder, **options)


async def test_a_request_says_whether_it_is_a_query(tmp_path: Path, folder: Path) -> None:
    model = {
        "adapter": "colbert",
        "weights_path": str(folder),
        "tasks": {"encode": {"multivector": {"dim": DIMS}}},
        "options": {"query_length": LENGTH},
    }
    async with served(write_catalog(tmp_path, {"org/colbert": model})) as worker:
        document = (await worker.encode("org/colbert", "the cat , sat")).json()["items"][0]["multivector"]
        query = (await worker.encode("org/colbert", "the cat , sat", options={"is_query": True})).json()["items"][0]
    assert (document["token_dims"], document["num_tokens"]) == (DIMS, 6)
    assert query["multivector"]["num_tokens"] == LENGTH
    np.testing.assert_allclose(
        document["values"], vectors(adapter(folder, max_length=320), ["the cat , sat"])[0], atol=1e-5
    )
