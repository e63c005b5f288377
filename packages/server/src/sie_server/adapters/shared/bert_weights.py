"""BERT checkpoints as the packed encoder wants them: fused, transposed and scaled once, at load time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of a BERT configuration."""

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    norm_eps: float

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
    """A whole encoder. `positions` already carries the embedding of token type 0."""

    words: torch.Tensor
    positions: torch.Tensor
    norm: Norm
    layers: tuple[Layer, ...]


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """The shape of a BERT `config.json`.

    Raises:
        LoadError: DEPENDENCY when the architecture is another one.
    """
    expected = {"model_type": "bert", "hidden_act": "gelu"}
    for key, value in expected.items():
        if config.get(key) != value:
            message = f"the model has {key} {config.get(key)!r}; this adapter runs {value!r} only"
            raise LoadError(ErrorClass.DEPENDENCY, message)
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise LoadError(ErrorClass.DEPENDENCY, "the model has relative positions; this adapter has none")
    try:
        return BertShape(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"config.json is not that of a BERT: {error}") from error


def read_weights(tensors: Mapping[str, torch.Tensor], shape: BertShape, device: str, dtype: torch.dtype) -> BertWeights:
    """Collect a checkpoint's tensors under their names, with or without `bert.`, old normalisation names included.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    named = {canonical(name): tensor for name, tensor in tensors.items()}

    def get(name: str, *wanted: int) -> torch.Tensor:
        tensor = named.get(name)
        if tensor is None or (wanted and tuple(tensor.shape) != wanted):
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}, not {wanted}"
            raise LoadError(ErrorClass.UNKNOWN, f"the checkpoint's tensor '{name}' {found}")
        return tensor.to(device, torch.float32)

    def norm(name: str) -> Norm:
        return Norm(get(f"{name}.weight", shape.width).to(dtype), get(f"{name}.bias", shape.width).to(dtype))

    def linear(*names: str, scale_first: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        scales = (scale_first, *[1.0] * (len(names) - 1))
        weights = [get(f"{name}.weight") * scale for name, scale in zip(names, scales, strict=True)]
        biases = [get(f"{name}.bias") * scale for name, scale in zip(names, scales, strict=True)]
        return torch.cat(weights).t().contiguous().to(dtype), torch.cat(biases).to(dtype)

    def layer(index: int) -> Layer:
        prefix = f"encoder.layer.{index}"
        attention = f"{prefix}.attention.self"
        return Layer(
            *linear(*(f"{attention}.{part}" for part in ("query", "key", "value")), scale_first=query_scale),
            *linear(f"{prefix}.attention.output.dense"),
            norm(f"{prefix}.attention.output.LayerNorm"),
            *linear(f"{prefix}.intermediate.dense"),
            *linear(f"{prefix}.output.dense"),
            norm(f"{prefix}.output.LayerNorm"),
        )

    query_scale = 1.0 / math.sqrt(shape.head_width)
    positions = get("embeddings.position_embeddings.weight", shape.positions, shape.width)
    return BertWeights(
        words=get("embeddings.word_embeddings.weight").to(dtype),
        positions=(positions + get("embeddings.token_type_embeddings.weight")[0]).to(dtype),
        norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(index) for index in range(shape.layers)),
    )


def canonical(name: str) -> str:
    """A tensor's name without `bert.`, in the spelling of today."""
    for old, new in _OLD_NAMES:
        name = name.replace(old, new)
    return name.removeprefix("bert.")
