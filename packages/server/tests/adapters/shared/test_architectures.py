"""Every architecture equals transformers, whatever else is in its batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_families import LETTERS, WIDTH, Family, decoder_of_old, family_oracle, modernbert_of_old, write_family

TEXTS = [
    "the cat sat on a mat",
    "",
    "two dogs running far away, and a cat saw the two dogs.",
    "x",
    "the cat saw two dogs running, " * 5,  # longer than what plain attention takes
    "far away, " * 40,
    "and a cat. " * 60,  # longer than the model reads
]
TINY: dict[str, Family] = {
    "xlm-roberta": Family("xlm-roberta", {"num_hidden_layers": 3}),
    "xlm-roberta, first token": Family("xlm-roberta", {"num_hidden_layers": 2}, "cls", normalize=False, seed=1),
    "roberta, prefixed": Family("roberta", {"num_hidden_layers": 2}, seed=2, prefix="roberta."),
    "modernbert, windows within a text": Family("modernbert", {"num_hidden_layers": 6, "local_attention": 8}, seed=3),
    "modernbert, first token": Family(
        "modernbert", {"num_hidden_layers": 4, "norm_eps": 1e-3}, "cls", normalize=False, seed=4
    ),
    "modernbert, ends in a window": Family(
        "modernbert", {"num_hidden_layers": 5, "local_attention": 64}, "cls", seed=5
    ),
    "modernbert, as transformers 4 wrote it": Family(
        "modernbert",
        {
            "num_hidden_layers": 3,
            "local_attention": 16,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
        seed=6,
        prefix="model.",
        legacy_config=modernbert_of_old,
    ),
    "qwen3": Family("qwen3", {"num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 16}, "last", seed=7),
    "qwen3, one shared head": Family(
        "qwen3",
        {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 4, "rms_norm_eps": 1e-3},
        "mean",
        normalize=False,
        seed=8,
    ),
    "qwen3, as transformers 4 wrote it": Family(
        "qwen3",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "use_sliding_window": True,
            "sliding_window": 20,
            "max_window_layers": 2,
        },
        "last",
        seed=9,
        prefix="model.",
        legacy_config=decoder_of_old,
    ),
    "qwen3, layers by name": Family(
        "qwen3",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 150,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "cls",
        seed=10,
    ),
    "mistral": Family(
        "mistral", {"num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": None}, "last", seed=11
    ),
    "mistral, windows": Family(
        "mistral",
        {"num_hidden_layers": 3, "num_key_value_heads": 1, "sliding_window": 30, "head_dim": 12},
        "last",
        seed=12,
    ),
}


def adapter(folder: Path, **options: Any) -> DenseAdapter:
    dense = DenseAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, options))
    dense.load("cpu")
    return dense


def encode(loaded: DenseAdapter, texts: list[str]) -> Array:
    return loaded.run(loaded.prepare(texts), threads=1)["dense"]


@pytest.mark.parametrize("family", TINY.values(), ids=TINY)
def test_vectors_equal_those_of_transformers(tmp_path: Path, family: Family) -> None:
    folder = write_family(tmp_path / "model", family)
    np.testing.assert_allclose(encode(adapter(folder), TEXTS), family_oracle(folder, TEXTS, family), atol=1e-5)


@pytest.fixture(scope="module", params=TINY)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DenseAdapter:
    return adapter(write_family(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]))


@given(st.lists(st.text(LETTERS, max_size=300), min_size=1, max_size=7), st.randoms())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_does_not_depend_on_its_batch(loaded: DenseAdapter, texts: list[str], random: Any) -> None:
    alone = np.concatenate([encode(loaded, [text]) for text in texts])
    np.testing.assert_allclose(encode(loaded, texts), alone, atol=1e-5)
    order = random.sample(range(len(texts)), len(texts))
    np.testing.assert_allclose(encode(loaded, [texts[at] for at in order]), alone[order], atol=1e-5)


def test_an_unknown_architecture_names_the_known_ones(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", TINY["xlm-roberta"])
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(
        LoadError, match=r"model_type 't5'; .* bert, mistral, modernbert, qwen3, roberta, xlm-roberta"
    ) as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
