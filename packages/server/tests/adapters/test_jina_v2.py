"""Jina AI's second generation (Günther et al. 2023, arXiv 2310.19923): a BERT with ALiBi and gated inner layers.

The model of code also normalises queries, keys and a second sum, and has the halves of its inner layer swapped.
No library that is installed here runs it, so the oracle is the arithmetic of the two papers, written out for one text.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from tiny_families import TOKENIZERS

WIDTH, INNER, LAYERS, EPS = 24, 40, 2, 1e-3
TEXTS = ["the cat sat on a mat", "", "x", "two dogs running, " * 12, "far away, and a cat. " * 60]


# Names of the inner layers and of the norm behind them; of the model of code with True.
PUBLISHED = {
    False: ("mlp.gated_layers", "mlp.wo", "mlp.layernorm"),
    True: ("mlp.up_gated_layer", "mlp.down_layer", "layer_norm_2"),
}
CODE = ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1")


def write_checkpoint(folder: Path, heads: int, gate: str = "geglu", *, of_code: bool = False) -> Path:
    """A folder under the published names; every number is random."""
    generator = torch.Generator().manual_seed(heads)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    tokenizer = TOKENIZERS["distilbert"]()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {
        "embeddings.word_embeddings.weight": random(tokenizer.get_vocab_size(), WIDTH),
        "embeddings.token_type_embeddings.weight": random(2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            tensors[f"{prefix}.attention.{part}.weight"] = random(WIDTH, WIDTH)
            tensors[f"{prefix}.attention.{part}.bias"] = random(WIDTH)
        up, down, last = PUBLISHED[of_code]
        tensors[f"{prefix}.{up}.weight"] = random(2 * INNER, WIDTH)
        tensors |= {f"{prefix}.{down}.weight": random(WIDTH, INNER), f"{prefix}.{down}.bias": random(WIDTH)}
        norms += [f"{prefix}.{each}" for each in ("attention.output.LayerNorm", last, *(CODE if of_code else ()))]
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + random(WIDTH), f"{norm}.bias": random(WIDTH)}
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "bert",
        "position_embedding_type": "alibi",
        **({} if of_code else {"feed_forward_type": gate}),
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "intermediate_size": INNER,
        "max_position_embeddings": 8192,
        "layer_norm_eps": EPS,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def slopes(heads: int) -> list[float]:
    """By the paper: a geometric sequence; between powers of two, every other one of the next power's."""
    if math.log2(heads).is_integer():
        first = 2 ** (-8 / heads)
        return [first ** (at + 1) for at in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return slopes(below) + slopes(2 * below)[::2][: heads - below]


@torch.inference_mode()
def oracle(folder: Path, text: str, heads: int, gate: str, pooling: str) -> Array:
    """The mean of one text's states, or the first one, at unit length."""
    tensors = load_file(folder / "model.safetensors")
    of_code = "encoder.layer.0.layer_norm_1.weight" in tensors
    up, down, last = PUBLISHED[of_code]
    activate = {"geglu": functional.gelu, "reglu": torch.relu}[gate]
    ids = torch.tensor(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)

    def linear(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def norm(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(states, (WIDTH,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], EPS)

    places = torch.arange(len(ids))
    apart = (places[:, None] - places[None, :]).abs()
    words = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][0]
    states = norm("embeddings.LayerNorm", words)
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        parts = [linear(f"{prefix}.attention.self.{part}", states) for part in ("query", "key", "value")]
        if of_code:
            parts[:2] = [norm(f"{prefix}.{name}", part) for name, part in zip(CODE[:2], parts[:2], strict=True)]
        query, key, value = (part.view(len(ids), heads, -1).transpose(0, 1) for part in parts)
        scores = query @ key.transpose(1, 2) / math.sqrt(WIDTH // heads)
        weights = (scores - torch.tensor(slopes(heads))[:, None, None] * apart).softmax(-1)
        context = (weights @ value).transpose(0, 1).reshape(len(ids), WIDTH)
        summed = states + linear(f"{prefix}.attention.output.dense", context)
        attended = norm(f"{prefix}.attention.output.LayerNorm", summed)
        states = norm(f"{prefix}.layer_norm_1", states + attended) if of_code else attended
        first, second = linear(f"{prefix}.{up}", states).chunk(2, dim=1)
        inner = activate(second) * first if of_code else activate(first) * second
        states = norm(f"{prefix}.{last}", states + linear(f"{prefix}.{down}", inner))
    vector = states.mean(0) if pooling == "mean" else states[0]
    return np.asarray((vector / vector.norm()).numpy())


@pytest.mark.parametrize(("heads", "gate"), [(4, "geglu"), (3, "geglu"), (6, "reglu"), (12, "geglu")])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_of_a_mixed_batch_equal_the_papers(tmp_path: Path, heads: int, gate: str, pooling: str) -> None:
    assert_equal(write_checkpoint(tmp_path / "model", heads, gate), heads, gate, pooling)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_of_the_model_of_code_equal_its_arithmetic(tmp_path: Path, pooling: str) -> None:
    assert_equal(write_checkpoint(tmp_path / "model", 12, of_code=True), 12, "geglu", pooling)


def assert_equal(folder: Path, heads: int, gate: str, pooling: str) -> None:
    loaded = DenseAdapter(
        ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, {"pooling": pooling})
    )
    loaded.load("cpu")
    found: Any = loaded.run(loaded.prepare(TEXTS), threads=1)["dense"]
    expected = np.stack([oracle(folder, text, heads, gate, pooling) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected[:, None] - expected).max() > 0.1  # or equality would say little
