"""Late interaction on ModernBERT, as PyLate publishes it: markers in the vocabulary, and layers in folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.colbert import ColbertAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_families import WIDTH, Family, write_family

MASK, QUERY, DOCUMENT = "[MASK]", "[Q] ", "[D] "
DIMS, LENGTH, WINDOW = 12, 24, 32  # of token vectors, of queries, of attention (so many tokens on either side, halved)
TEXTS = ["The cat sat.", "", "two dogs, running far away!", "A long document: " * 9]


def write_pylate(folder: Path, *, window: int = WINDOW, residual: bool = True) -> Path:
    """A ModernBERT with two Dense modules, of which the first may have a residual."""
    own = {"num_hidden_layers": 4, "local_attention": window, "vocab_size": 262}
    write_family(folder, Family("modernbert", own, seed=5))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([MASK, QUERY, DOCUMENT])
    assert tokenizer.get_vocab_size() == 262
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    generator = torch.Generator().manual_seed(1)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    for path, rows, columns, around in (("1_Dense", 40, WIDTH, residual), ("2_Dense", DIMS, 40, False)):
        (folder / path).mkdir()
        tensors = {"linear.weight": torch.randn(rows, columns, generator=generator)}
        if around:
            tensors["residual.weight"] = torch.randn(rows, columns, generator=generator)
        save_file(tensors, folder / path / "model.safetensors")
        config = {"activation_function": "torch.nn.modules.linear.Identity", "use_residual": around}
        (folder / path / "config.json").write_text(json.dumps(config))
        modules.append({"type": "pylate.models.Dense.Dense", "path": path})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def adapter(folder: Path, **options: Any) -> ColbertAdapter:
    markers = {"query_marker": QUERY, "doc_marker": DOCUMENT, "query_length": LENGTH}
    spec = ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"multivector": DIMS}, markers | options)
    made = ColbertAdapter(spec)
    made.load("cpu")
    return made


def vectors(loaded: ColbertAdapter, *, is_query: bool) -> list[Array]:
    rows: Any = loaded.run(loaded.prepare(TEXTS, is_query=is_query), threads=1)["multivector"]
    return list(rows)


def recipe(folder: Path, text: str, marker: str, *, length: int, fill: bool) -> Array:
    """What PyLate does with one text, by hand: mark, fill up with masks nobody attends to, project, normalise."""
    from safetensors.torch import load_file  # noqa: PLC0415 - beside its only use
    from transformers import ModernBertModel  # noqa: PLC0415 - imported before, by what writes the checkpoint

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length - 1)
    ids = tokenizer.encode(text.lower()).ids
    added = {each.content: at for at, each in tokenizer.get_added_tokens_decoder().items()}
    ids.insert(1, added[marker])
    seen = [1] * len(ids)
    if fill:
        seen += [0] * (length - len(ids))
        ids += [added[MASK]] * (length - len(ids))
    model = ModernBertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([seen])).last_hidden_state[0]
    first, second = (load_file(folder / path / "model.safetensors") for path in ("1_Dense", "2_Dense"))
    wide = hidden @ first["linear.weight"].t()
    if "residual.weight" in first:
        wide = wide + hidden @ first["residual.weight"].t()
    projected = wide @ second["linear.weight"].t()
    rows = (projected / projected.norm(dim=1, keepdim=True)).numpy()
    if fill:
        return np.asarray(rows)
    punctuation = {tokenizer.token_to_id(each) for each in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}
    return np.asarray(rows[[each not in punctuation for each in ids]])


@pytest.mark.parametrize(("window", "residual"), [(128, True), (128, False), (2 * LENGTH, True)])
def test_query_vectors_equal_those_of_the_published_recipe(tmp_path: Path, window: int, residual: bool) -> None:
    folder = write_pylate(tmp_path / "model", window=window, residual=residual)
    for text, found in zip(TEXTS, vectors(adapter(folder), is_query=True), strict=True):
        assert found.shape == (LENGTH, DIMS)
        np.testing.assert_allclose(found, recipe(folder, text, QUERY, length=LENGTH, fill=True), atol=1e-5)


def test_document_vectors_equal_those_of_the_published_recipe(tmp_path: Path) -> None:
    folder = write_pylate(tmp_path / "model", window=8)
    for text, found in zip(TEXTS, vectors(adapter(folder), is_query=False), strict=True):
        np.testing.assert_allclose(found, recipe(folder, text, DOCUMENT, length=512, fill=False), atol=1e-5)


def test_tokens_beyond_the_window_of_a_short_query_have_vectors_all_the_same(tmp_path: Path) -> None:
    for found in vectors(adapter(write_pylate(tmp_path / "model", window=4)), is_query=True):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_residual_around_an_activation_is_refused(tmp_path: Path) -> None:
    folder = write_pylate(tmp_path / "model")
    config = {"activation_function": "torch.nn.modules.activation.Tanh", "use_residual": True}
    (folder / "1_Dense" / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="residual around an activation") as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
