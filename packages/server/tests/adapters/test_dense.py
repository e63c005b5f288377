import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import WIDTH, WORDS, Shape, oracle, write_checkpoint

TEXTS = [
    "the cat sat on a mat",
    "",
    "two dogs running far away , and a cat saw the two dogs .",
    "unheard-of words",
    " ".join(["the cat saw two dogs running ,"] * 9),
    "cat",
]


def adapter(folder: Path, *, dim: int = WIDTH, max_length: int | None = None, **options: Any) -> DenseAdapter:
    spec = ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": dim}, options, max_length)
    return DenseAdapter(spec)


def encode(loaded: DenseAdapter, texts: list[str]) -> Array:
    return np.asarray(loaded.run(loaded.prepare(texts), threads=1)["dense"])


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(pooling="cls"),
        Shape(pooling="last"),
        Shape(pooling="cls", normalize=False, seed=1),
        Shape(bert_prefix=True, seed=2),
        Shape(old_norm_names=True, pooling="cls", seed=3),
        Shape(max_seq_length=300, seed=4),
    ],
)
def test_vectors_equal_those_of_transformers(tmp_path: Path, shape: Shape) -> None:
    folder = write_checkpoint(tmp_path / "model", shape)
    loaded = adapter(folder)
    loaded.load("cpu")
    texts = [*TEXTS, " ".join(TEXTS * 4)]  # the last one is longer than what plain attention takes
    np.testing.assert_allclose(encode(loaded, texts), oracle(folder, texts, shape), atol=1e-5)


def add_layers(folder: Path, *, normalize: bool) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Two Dense modules behind the pooling, as sentence-transformers writes them."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(WIDTH, 16), torch.nn.Linear(16, 8, bias=False)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")]
    if normalize:
        kinds.append(("Normalize", "4_Normalize"))
    (folder / "modules.json").write_text(json.dumps([{"type": f"x.{kind}", "path": path} for kind, path in kinds]))
    for path, layer, activation in (
        ("2_Dense", layers[0], "activation.Tanh"),
        ("3_Dense", layers[1], "linear.Identity"),
    ):
        (folder / path).mkdir()
        config = {"activation_function": f"torch.nn.modules.{activation}"}
        (folder / path / "config.json").write_text(json.dumps(config))
        tensors = {f"linear.{name}": tensor.contiguous() for name, tensor in layer.state_dict().items()}
        save_file(tensors, folder / path / "model.safetensors")
    return layers


@pytest.mark.parametrize("normalize", [True, False])
def test_layers_behind_the_pooling_are_computed(tmp_path: Path, normalize: bool) -> None:
    shape = Shape(pooling="cls", normalize=False)
    folder = write_checkpoint(tmp_path / "model", shape)
    pooled = torch.from_numpy(oracle(folder, TEXTS, shape))
    first, second = add_layers(folder, normalize=normalize)
    loaded = adapter(folder, dim=8)
    loaded.load("cpu")
    with torch.inference_mode():
        expected = second(torch.tanh(first(pooled)))
    if normalize:
        expected = expected / expected.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(encode(loaded, TEXTS), expected, atol=1e-5)
    with pytest.raises(LoadError, match=f"dense vectors of 8 components, the catalogue says {WIDTH}"):
        adapter(folder).load("cpu")


@pytest.fixture(scope="module", params=["mean", "cls"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DenseAdapter:
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny") / "model", Shape(pooling=request.param))
    dense = adapter(folder)
    dense.load("cpu")
    return dense


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=7), st.randoms())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_does_not_depend_on_its_batch(loaded: DenseAdapter, texts: list[str], random: Any) -> None:
    alone = np.concatenate([encode(loaded, [text]) for text in texts])
    np.testing.assert_allclose(encode(loaded, texts), alone, atol=1e-5)
    order = random.sample(range(len(texts)), len(texts))
    np.testing.assert_allclose(encode(loaded, [texts[at] for at in order]), alone[order], atol=1e-5)


def test_the_catalogue_beats_the_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", Shape(pooling="mean", max_seq_length=64))
    wanted = Shape(pooling="cls", normalize=False, max_seq_length=5)
    dense = adapter(folder, max_length=5, pooling="cls", normalize=False)
    dense.load("cpu")
    np.testing.assert_allclose(encode(dense, TEXTS), oracle(folder, TEXTS, wanted), atol=1e-5)
    assert [each.truncated for each in dense.prepare(["the cat sat", "the cat sat on"])] == [False, True]


def test_tokens_are_counted_with_special_tokens(loaded: DenseAdapter) -> None:
    assert [each.tokens for each in loaded.prepare(["the cat sat", ""])] == [5, 2]


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_act": "relu"}')


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not tensors")


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def extra_module(folder: Path) -> None:
    (folder / "modules.json").write_text(
        '[{"type": "x.Transformer", "path": ""}, {"type": "x.WordWeights", "path": "2"}]'
    )


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        (break_config, ErrorClass.DEPENDENCY, "hidden_act 'relu'"),
        (break_tokenizer, ErrorClass.NOT_FOUND, "tokenizer.json"),
        (break_weights, ErrorClass.UNKNOWN, "cannot be read"),
        (only_pickles, ErrorClass.DEPENDENCY, "allow_pickle: true"),
        (extra_module, ErrorClass.DEPENDENCY, "WordWeights"),
    ],
)
def test_a_folder_that_cannot_be_served_says_why(
    tmp_path: Path, damage: Any, error_class: ErrorClass, named: str
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    damage(folder)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder).load("cpu")
    assert refused.value.error_class is error_class


def test_a_wrong_dimension_in_the_catalogue_is_found_at_load(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(LoadError, match=f"{WIDTH} components, the catalogue says 7"):
        adapter(folder, dim=7).load("cpu")
