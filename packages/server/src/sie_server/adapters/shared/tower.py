"""A transformer of CLIP and SigLIP, for texts or for the patches of images: normalises first.

Positions are learned and added before it, or those of Qwen-VL's images, which turn queries and keys. Qwen2.5-VL gates
the inner layers, and in most blocks a token sees a window only.

Packed like the other encoders: the tokens of all sequences in one row of memory.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import torch
from torch.nn import functional

from sie_server.adapters.shared.attention import Attention, AttentionPattern
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.rope import rotate


def _quick_gelu(inner: torch.Tensor) -> torch.Tensor:
    return inner.mul_(torch.sigmoid(1.702 * inner))


ACTIVATIONS: Final[Mapping[str, Callable[[torch.Tensor], torch.Tensor]]] = MappingProxyType(
    {
        "gelu": functional.gelu,
        "gelu_pytorch_tanh": lambda inner: functional.gelu(inner, approximate="tanh"),
        "quick_gelu": _quick_gelu,
        "silu": functional.silu,
    }
)


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear layer, weights [in, out] and contiguous, or a layer normalisation, weights [width]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def linear(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out]."""
        return torch.addmm(self.bias, hidden, self.weight)

    def norm(self, hidden: torch.Tensor, eps: float) -> torch.Tensor:
        """Mean 0 and variance 1 over the last axis, then scaled and shifted."""
        return functional.layer_norm(hidden, hidden.shape[-1:], self.weight, self.bias, eps)


class Norm(Protocol):
    """What makes rows alike in size."""

    def norm(self, hidden: torch.Tensor, eps: float) -> torch.Tensor:
        """[..., width] to the same."""


@dataclass(frozen=True, slots=True)
class Root:
    """A normalisation by the root mean square alone, weights [width]."""

    weight: torch.Tensor

    def norm(self, hidden: torch.Tensor, eps: float) -> torch.Tensor:
        """Mean square 1 over the last axis, then scaled."""
        return functional.rms_norm(hidden, hidden.shape[-1:], self.weight, eps)


@dataclass(frozen=True, slots=True)
class Block:
    """One block; queries already carry the factor 1/sqrt(head width). Turned heads have their pairs side by side.

    In a gated tower `up` gives what is activated first, then what it is multiplied with. `is_near`: tokens see those of
    their window only.
    """

    attention_norm: Norm
    qkv: Affine
    out: Affine
    inner_norm: Norm
    up: Affine
    down: Affine
    is_near: bool = False


@dataclass(frozen=True, slots=True)
class TowerShape:
    """The numbers of one tower."""

    layers: int
    width: int
    heads: int
    inner: int
    norm_eps: float
    activation: str
    gated: bool = False


class Tower:
    """The blocks, without embeddings and without the norm at the end."""

    def __init__(self, shape: TowerShape, blocks: tuple[Block, ...], pattern: AttentionPattern, device: str) -> None:
        self.shape = shape
        self._blocks = blocks
        self._pattern = pattern
        self._attend = Attention(device)
        self._activate = ACTIVATIONS[shape.activation]

    def run(
        self,
        hidden: torch.Tensor,
        lengths: list[int],
        by: torch.Tensor | None = None,
        windows: list[int] | None = None,
    ) -> torch.Tensor:
        """[tokens, width] to the same, changed in place; `lengths` are those of the sequences in it.

        With `by` [tokens, head width / 2] queries and keys are turned, see `rope.rotate`. `windows` are the lengths of
        the pieces within which the tokens of near blocks see each other; None: the sequences.
        """
        shape = self.shape
        for block in self._blocks:
            qkv = block.qkv.linear(block.attention_norm.norm(hidden, shape.norm_eps))
            by_head = qkv.view(len(hidden), 3, shape.heads, -1)
            if by is not None:
                rotate(by_head[:, :2].flatten(1, 2), by)
            heads = by_head.permute(1, 2, 0, 3)
            context = torch.empty_like(hidden)
            out = context.view(len(hidden), shape.heads, -1)
            pieces = windows if block.is_near and windows is not None else lengths
            self._attend(heads.unbind(), out, pieces, self._pattern)
            hidden.add_(block.out.bias).addmm_(context, block.out.weight)
            inner = self._inner(block.up.linear(block.inner_norm.norm(hidden, shape.norm_eps)))
            hidden.add_(block.down.bias).addmm_(inner, block.down.weight)
        return hidden

    def _inner(self, product: torch.Tensor) -> torch.Tensor:
        if not self.shape.gated:
            return self._activate(product)
        gate, up = product.chunk(2, dim=1)
        return self._activate(gate).mul_(up)


def read_tower_shape(config: Mapping[str, Any]) -> TowerShape:
    """The shape of one tower from its part of the configuration, defaults filled in.

    Raises:
        LoadError: DEPENDENCY when the activation is another one, UNKNOWN when a number is none.
    """
    expect(config, "hidden_act", *ACTIVATIONS)
    return read_numbers(
        "CLIP or SigLIP",
        lambda: TowerShape(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            norm_eps=float(config["layer_norm_eps"]),
            activation=str(config["hidden_act"]),
        ),
    )


def read_blocks(checkpoint: Checkpoint, prefix: str, shape: TowerShape, dtype: torch.dtype) -> tuple[Block, ...]:
    """The blocks of a tower whose tensors start with `prefix` (`text_model` or `vision_model`)."""
    scale = 1.0 / math.sqrt(shape.width // shape.heads)

    def block(at: int) -> Block:
        name = f"{prefix}.encoder.layers.{at}"
        attention = [read_affine(checkpoint, f"{name}.self_attn.{part}_proj", torch.float32) for part in "qkv"]
        query = Affine(attention[0].weight * scale, attention[0].bias * scale)
        parts = (query, *attention[1:])
        qkv = Affine(
            torch.cat([each.weight for each in parts], dim=1).to(dtype),
            torch.cat([each.bias for each in parts]).to(dtype),
        )
        return Block(
            attention_norm=read_affine(checkpoint, f"{name}.layer_norm1", dtype),
            qkv=qkv,
            out=read_affine(checkpoint, f"{name}.self_attn.out_proj", dtype),
            inner_norm=read_affine(checkpoint, f"{name}.layer_norm2", dtype),
            up=read_affine(checkpoint, f"{name}.mlp.fc1", dtype),
            down=read_affine(checkpoint, f"{name}.mlp.fc2", dtype),
        )

    return tuple(block(at) for at in range(shape.layers))


def read_affine(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Affine:
    """`name.weight` and `name.bias`."""
    weight = checkpoint.get(f"{name}.weight", dtype=dtype)
    return Affine(weight.t().contiguous() if weight.dim() > 1 else weight, checkpoint.get(f"{name}.bias", dtype=dtype))


def read_root(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Root:
    """`name.weight` of a normalisation without a bias."""
    return Root(checkpoint.get(f"{name}.weight", dtype=dtype))
