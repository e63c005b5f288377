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
from tiny_families import LETTERS, WIDTH, Family, family_oracle, write_family

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
    with pytest.raises(LoadError, match=r"model_type 't5'; .* bert, .*roberta, xlm-roberta") as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
