from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, Pair, WeightsSource
from sie_server.adapters.cross_encoder import CrossEncoderAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_families import MAX_LENGTH
from tiny_rerankers import pair_logits, set_config, write_pair_model

LONG = "a long document: " * 40
PAIRS = [Pair("the cat", "sat on a mat"), Pair("", ""), Pair("dogs", LONG), Pair(LONG, LONG), Pair("a" * 90, "b")]
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}
VARIETIES: list[tuple[str, dict[str, Any]]] = [
    ("xlm-roberta", {}),
    ("roberta", {}),
    ("gte", {"type_vocab_size": 1}),
    ("gte", {"type_vocab_size": 2}),
    ("modernbert", {"classifier_pooling": "cls", "num_hidden_layers": 4}),
    ("modernbert", {"classifier_pooling": "mean", "num_hidden_layers": 4, "local_attention": 16}),
    ("modernbert", {"classifier_pooling": "mean", "classifier_bias": True, "classifier_activation": "silu"}),
]


def adapter(folder: Path, max_length: int | None = None) -> CrossEncoderAdapter:
    built = CrossEncoderAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}, max_length))
    built.load("cpu")
    return built


def scores(loaded: CrossEncoderAdapter, pairs: list[Pair]) -> Array:
    return loaded.run(loaded.prepare(pairs), threads=1)["score"]


@pytest.mark.parametrize(("model_type", "config"), VARIETIES)
def test_scores_of_a_mixed_batch_equal_those_of_transformers(
    tmp_path: Path, model_type: str, config: dict[str, Any]
) -> None:
    folder = write_pair_model(tmp_path / "model", model_type, **config)
    for max_length in (MAX_LENGTH, 37):
        raw = pair_logits(folder, PAIRS, max_length)
        assert np.ptp(raw) > 0.05  # or equality would say little
        np.testing.assert_allclose(
            scores(adapter(folder, max_length), PAIRS), 1 / (1 + np.exp(-raw)), rtol=1e-5, atol=1e-5
        )
    set_config(folder, sentence_transformers=IDENTITY)
    np.testing.assert_allclose(scores(adapter(folder, 37), PAIRS), raw, rtol=1e-5, atol=1e-5)


def test_a_pair_counts_the_tokens_it_has_before_it_is_cut(tmp_path: Path) -> None:
    loaded = adapter(write_pair_model(tmp_path / "model", "xlm-roberta"), 20)
    pair = Pair("a" * 30, "b" * 9)
    (cut,) = loaded.prepare([pair])
    whole = adapter(tmp_path / "model").prepare([pair])[0].tokens
    assert (cut.tokens, cut.truncated, loaded.tokens_of(pair)) == (20, True, whole)


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    folder = write_pair_model(tmp_path / "model", "modernbert")
    set_config(folder, classifier_pooling="max")
    with pytest.raises(LoadError, match="classifier_pooling 'max'") as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
