"""Nomic's second generation (Nussbaum and Duderstadt 2025, arXiv 2502.07972): experts in every other layer.

No library that is installed here runs it, so the oracle is its arithmetic written out for one text, token by token.
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
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from tiny_families import TOKENIZERS

WIDTH, INNER, LAYERS, HEADS, EXPERTS, CHOSEN = 24, 20, 4, 3, 5, 2
EPS, THETA = 1e-3, 300.0
TEXTS = ["the cat sat on a mat", "", "x", "two dogs running, " * 12, "far away, and a cat. " * 40]


def write_checkpoint(folder: Path, **config: Any) -> Path:
    """A folder under the published names; every number is random."""
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.4

    tokenizer = TOKENIZERS["xlm-roberta"]()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {
        "embeddings.word_embeddings.weight": random(tokenizer.get_vocab_size(), WIDTH),
        "embeddings.token_type_embeddings.weight": random(1, WIDTH),
    }
    norms, linears = ["emb_ln"], dict[str, tuple[int, int]]()
    for layer in range(LAYERS):
        prefix = f"encoder.layers.{layer}"
        linears |= {f"{prefix}.attn.Wqkv": (3 * WIDTH, WIDTH), f"{prefix}.attn.out_proj": (WIDTH, WIDTH)}
        norms += [f"{prefix}.norm1", f"{prefix}.norm2"]
        if layer % 2 == 0:
            linears |= {f"{prefix}.mlp.fc1": (INNER, WIDTH), f"{prefix}.mlp.fc2": (WIDTH, INNER)}
            continue
        tensors |= {
            f"{prefix}.mlp.router.layer.weight": 3 * random(EXPERTS, WIDTH),
            f"{prefix}.mlp.experts.mlp.w1": random(EXPERTS * INNER, WIDTH),
            f"{prefix}.mlp.experts.mlp.w2": random(EXPERTS * INNER, WIDTH),
            f"{prefix}.mlp.experts.bias": random(WIDTH),
        }
    for name, (rows, columns) in linears.items():
        tensors |= {f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)}
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + random(WIDTH), f"{norm}.bias": random(WIDTH)}
    save_file(tensors, folder / "model.safetensors")
    own = {
        "model_type": "nomic_bert",
        "activation_function": "gelu",
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": 2048,
        "max_trained_positions": 2048,
        "layer_norm_epsilon": EPS,
        "type_vocab_size": 1,
        "rotary_emb_base": THETA,
        "rotary_emb_fraction": 1.0,
        "qkv_proj_bias": True,
        "num_experts": EXPERTS,
        "num_shared_experts": 0,
        "moe_top_k": CHOSEN,
        "moe_every_n_layers": 2,
        "moe_normalize_expert_weights": False,
        "expert_choice_router": False,
    }
    (folder / "config.json").write_text(json.dumps({**own, **config}))
    return folder


def rotated(heads: torch.Tensor) -> torch.Tensor:
    """By the book: component i of a head turns with component i + half."""
    half = heads.shape[2] // 2
    angles = torch.arange(heads.shape[1])[:, None] * THETA ** (-torch.arange(half) / half)
    left, right = heads.chunk(2, dim=2)
    return torch.cat((left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()), 2)


@torch.inference_mode()
def oracle(folder: Path, text: str) -> Array:
    """The mean of one text's states, at unit length."""
    tensors = load_file(folder / "model.safetensors")
    ids = torch.tensor(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)

    def linear(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(states, (WIDTH,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], EPS)

    def mixed(name: str, state: torch.Tensor) -> torch.Tensor:
        sure = (tensors[f"{name}.router.layer.weight"] @ state).softmax(0)
        found = tensors[f"{name}.experts.bias"].clone()
        for expert in sure.argsort(descending=True)[:CHOSEN].tolist():
            rows = slice(expert * INNER, (expert + 1) * INNER)
            inner = functional.gelu(tensors[f"{name}.experts.mlp.w1"][rows] @ state)
            found += sure[expert] * (inner @ tensors[f"{name}.experts.mlp.w2"][rows])
        return found

    words = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][0]
    states = norm("emb_ln", words)
    for layer in range(LAYERS):
        prefix = f"encoder.layers.{layer}"
        qkv = linear(f"{prefix}.attn.Wqkv", states).view(len(ids), 3, HEADS, -1).permute(1, 2, 0, 3)
        scores = rotated(qkv[0]) @ rotated(qkv[1]).transpose(1, 2) / math.sqrt(WIDTH // HEADS)
        context = (scores.softmax(-1) @ qkv[2]).transpose(0, 1).reshape(len(ids), WIDTH)
        states = norm(f"{prefix}.norm1", states + linear(f"{prefix}.attn.out_proj", context))
        if layer % 2:
            inner = torch.stack([mixed(f"{prefix}.mlp", state) for state in states])
        else:
            inner = linear(f"{prefix}.mlp.fc2", functional.gelu(linear(f"{prefix}.mlp.fc1", states)))
        states = norm(f"{prefix}.norm2", states + inner)
    vector = states.mean(0)
    return np.asarray((vector / vector.norm()).numpy())


def adapter(folder: Path) -> DenseAdapter:
    made = DenseAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, {"pooling": "mean"}))
    made.load("cpu")
    return made


def test_vectors_of_a_mixed_batch_equal_the_sum_of_the_chosen_experts(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    loaded = adapter(folder)
    found: Any = loaded.run(loaded.prepare(TEXTS), threads=1)["dense"]
    expected = np.stack([oracle(folder, text) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected[:, None] - expected).max() > 0.1  # or equality would say little


@pytest.mark.parametrize(
    "config", [{"num_shared_experts": 1}, {"moe_normalize_expert_weights": True}, {"expert_choice_router": True}]
)
def test_experts_that_would_be_mixed_wrongly_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match=next(iter(config))):
        adapter(write_checkpoint(tmp_path / "model", **config))
