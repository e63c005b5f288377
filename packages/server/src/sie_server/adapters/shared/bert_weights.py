"""BERT checkpoints as the packed encoder wants them: fused, transposed and scaled once, at load time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sie_server.adapters.shared.checkpoint import Checkpoint, Get, expect, read_numbers

# RoBERTa counts its positions from the one after the padding token's id; the rows before it are never used.
_FIRST_POSITION_AFTER_PAD = ("roberta", "xlm-roberta")
_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of a BERT configuration. `positions` are usable ones; the first of them is row `first_position`."""

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    norm_eps: float
    first_position: int = 0

    @property
    def head_width(self) -> int:
        """Components of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and shift of one layer normalisation, each [width]."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. Weights are [in, out] and contiguous; queries already carry the factor 1/sqrt(head width)."""

    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    out: torch.Tensor
    out_bias: torch.Tensor
    attention_norm: Norm
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class BertWeights:
    """A whole encoder. `positions` already carries the embedding of token type 0, `types` what others add to it."""

    words: torch.Tensor
    positions: torch.Tensor
    types: torch.Tensor
    norm: Norm
    layers: tuple[Layer, ...]


def read_shape(config: Mapping[str, Any], model_types: Sequence[str]) -> BertShape:
    """The shape of a `config.json` of one of these types, which may be `bert`, `roberta` and `xlm-roberta`.

    Raises:
        LoadError: DEPENDENCY when the architecture is another one, UNKNOWN when its numbers are missing.
    """
    expect(config, "model_type", *model_types)
    expect(config, "hidden_act", "gelu")
    expect(config, "position_embedding_type", "absolute", default="absolute")

    def read() -> BertShape:
        first = int(config["pad_token_id"]) + 1 if config["model_type"] in _FIRST_POSITION_AFTER_PAD else 0
        return BertShape(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]) - first,
            norm_eps=float(config.get("layer_norm_eps", 1e-12)),
            first_position=first,
        )

    return read_numbers("BERT", read)


def read_weights(tensors: Mapping[str, torch.Tensor], shape: BertShape, device: str, dtype: torch.dtype) -> BertWeights:
    """Collect a checkpoint's tensors under their names, prefixed or not, old normalisation names included.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, canonical, device).get
    query_scale = 1.0 / math.sqrt(shape.head_width)
    first = shape.first_position
    positions = get("embeddings.position_embeddings.weight", first + shape.positions, shape.width)[first:]
    types = get("embeddings.token_type_embeddings.weight")
    return BertWeights(
        words=get("embeddings.word_embeddings.weight").to(dtype),
        positions=(positions + types[0]).to(dtype),
        types=(types - types[0]).to(dtype),
        norm=read_norm(get, "embeddings.LayerNorm", shape.width, dtype),
        layers=tuple(
            read_layer(get, f"encoder.layer.{index}", shape.width, query_scale, dtype) for index in range(shape.layers)
        ),
    )


def read_norm(get: Get, name: str, width: int, dtype: torch.dtype = torch.float32) -> Norm:
    """One layer normalisation."""
    return Norm(get(f"{name}.weight", width).to(dtype), get(f"{name}.bias", width).to(dtype))


def read_layer(get: Get, prefix: str, width: int, query_scale: float, dtype: torch.dtype) -> Layer:
    """One block under BERT's names."""

    def linear(*names: str, scale_first: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        scales = (scale_first, *[1.0] * (len(names) - 1))
        weights = [get(f"{name}.weight") * scale for name, scale in zip(names, scales, strict=True)]
        biases = [get(f"{name}.bias") * scale for name, scale in zip(names, scales, strict=True)]
        return torch.cat(weights).t().contiguous().to(dtype), torch.cat(biases).to(dtype)

    attention = f"{prefix}.attention.self"
    return Layer(
        *linear(*(f"{attention}.{part}" for part in ("query", "key", "value")), scale_first=query_scale),
        *linear(f"{prefix}.attention.output.dense"),
        read_norm(get, f"{prefix}.attention.output.LayerNorm", width, dtype),
        *linear(f"{prefix}.intermediate.dense"),
        *linear(f"{prefix}.output.dense"),
        read_norm(get, f"{prefix}.output.LayerNorm", width, dtype),
    )


def canonical(name: str) -> str:
    """A tensor's name without `bert.` or `roberta.`, in the spelling of today."""
    return current_name(name).removeprefix("bert.").removeprefix("roberta.")


def current_name(name: str) -> str:
    """A tensor's name with normalisations spelled as today."""
    for old, new in _OLD_NAMES:
        name = name.replace(old, new)
    return name
