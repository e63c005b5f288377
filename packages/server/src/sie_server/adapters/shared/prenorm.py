"""An encoder over packed batches for everything that normalises before each step, turns positions and gates its MLP.

ModernBERT and the decoders differ in what is in `PreNormShape` and `Layer`, not in a line of this file. As in the BERT
encoder, buffers are kept per thread, and residual sums are folded into the products.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.attention import CAUSAL, Attention, AttentionPattern
from sie_server.adapters.shared.buffers import Buffers, ThreadBuffers
from sie_server.adapters.shared.linear import InPlace
from sie_server.adapters.shared.lora import Add, Lora, Mixture, Targets, adding, mix
from sie_server.adapters.shared.rope import Rope, rotate, rotations
from sie_server.adapters.shared.varlen import Packed, pack

# Tokens that all sequences of a batch must begin with before it pays to compute them once: a short instruction's.
LEAST_FRONT_TOKENS: Final = 8

# Scales a batch [tokens, width] by its own size and by a weight [width] or None: (batch, weight, epsilon)
Normalize = Callable[[torch.Tensor, torch.Tensor | None, float], torch.Tensor]


@dataclass(frozen=True, slots=True)
class PreNormShape:
    """The numbers of an encoder and its functions. `shared_heads`: heads of keys and values."""

    layers: int
    width: int
    heads: int
    shared_heads: int
    head_width: int
    inner: int
    positions: int
    norm_eps: float
    normalize: Normalize
    activate: InPlace

    @property
    def rotated_heads(self) -> int:
        """Heads of queries and of keys."""
        return self.heads + self.shared_heads


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. Weights are [in, out] and contiguous; queries and keys have their pairs side by side.

    Queries carry the factor 1/sqrt(head width): in `head_norm` [turned heads, head width] if there is one, else in
    `qkv` and its bias. `gate_up` gives what is activated first, then what it is multiplied with. What comes out of a
    step with an `_after` is normalised before it is added.
    """

    attention_norm: torch.Tensor | None
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    head_norm: torch.Tensor | None
    out: torch.Tensor
    inner_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    rope: Rope
    pattern: AttentionPattern
    attention_after: torch.Tensor | None = None
    inner_after: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class PreNormWeights:
    """A whole encoder. Without `embedding_norm` words go in as they are; without `attention_norm` so does a block."""

    words: torch.Tensor
    embedding_norm: torch.Tensor | None
    layers: tuple[Layer, ...]
    final_norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Batch:
    packed: Packed
    rotations: dict[Rope, torch.Tensor]
    buffers: Buffers
    loras: Mixture | None


class PackedPreNorm:
    """The encoder. `encode` may run in several threads at once: each has buffers of its own."""

    def __init__(
        self, shape: PreNormShape, weights: PreNormWeights, device: str, targets: Targets | None = None
    ) -> None:
        self.targets = targets
        self._shape = shape
        self._weights = weights
        self._device = device
        self._ropes = {layer.rope for layer in weights.layers}
        self._attend = Attention(device)
        # On an accelerator attention pads, and what is saved here costs more than it takes.
        self._goes_on = device == "cpu" and all(layer.pattern == CAUSAL for layer in weights.layers)
        self._buffers = ThreadBuffers(
            device,
            qkv=(shape.rotated_heads + shape.shared_heads) * shape.head_width,
            context=shape.heads * shape.head_width,
            inner=2 * shape.inner,
        )

    @torch.inference_mode()
    def encode(
        self,
        sequences: Sequence[Array],
        *,
        first_only: bool = False,
        types: Sequence[Array] | None = None,
        key_lengths: list[int] | None = None,
        loras: Sequence[Lora | None] | None = None,
    ) -> tuple[torch.Tensor, list[int]]:
        """Normalised hidden states of the last block for int64 token id arrays; there are no token types.

        With `key_lengths` tokens look at so many of their sequence only; `loras` are those of the sequences.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """
        assert types is None, "an encoder without token types gets none"  # noqa: S101 - a bug of the caller
        if self._goes_on and key_lengths is None and loras is None and not first_only:
            front = shared_front(sequences)
            if front >= LEAST_FRONT_TOKENS:
                return self._behind(sequences, front)
        packed = pack(sequences, self._device, key_lengths)
        return self.encode_states(self.embed(packed.ids), packed, first_only=first_only, loras=loras)

    def _behind(self, sequences: Sequence[Array], front: int) -> tuple[torch.Tensor, list[int]]:
        """`encode` of sequences that begin with the same tokens, which are computed once."""
        parts = [sequences[0][:front], *(each[front:] for each in sequences)]
        packed = pack(parts, self._device, front=front)
        hidden, lengths = self.encode_states(self.embed(packed.ids), packed)
        first, *others = torch.split_with_sizes(hidden, lengths)
        return torch.cat([part for each in others for part in (first, each)]), [len(each) for each in sequences]

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return len(self._weights.words)

    @torch.inference_mode()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """What goes into the first block for token ids [tokens], before any norm: [tokens, width], a new tensor."""
        return functional.embedding(ids, self._weights.words)

    @torch.inference_mode()
    def encode_states(
        self,
        hidden: torch.Tensor,
        packed: Packed,
        *,
        first_only: bool = False,
        loras: Sequence[Lora | None] | None = None,
    ) -> tuple[torch.Tensor, list[int]]:
        """`encode` for who has changed what goes in: `hidden` is of `embed`, and is written over.

        Positions of `packed` may have several axes, see `rope.rotations`; its ids are not read.
        """
        weights = self._weights
        if weights.embedding_norm is not None:
            hidden = self._norm(hidden, weights.embedding_norm)
        batch = _Batch(
            packed,
            {rope: rotations(packed.positions, rope, self._shape.head_width) for rope in self._ropes},
            self._buffers.of(len(hidden), hidden.dtype),
            mix(loras, packed.lengths, self._device),
        )
        last = len(weights.layers) - 1
        for at, layer in enumerate(weights.layers[:last]):
            context = self._attention(at, hidden, batch)
            hidden = self._rest(layer, hidden, context, batch.buffers, adding(batch.loras, at))
        context, lengths, mixed = self._attention(last, hidden, batch), packed.lengths, batch.loras
        if first_only:
            hidden, context, lengths = hidden[packed.starts], context[packed.starts], [1] * len(lengths)
            mixed = mix(loras, lengths, self._device)
        hidden = self._rest(weights.layers[last], hidden, context, batch.buffers, adding(mixed, last))
        return self._norm(hidden, weights.final_norm), lengths

    def _attention(self, at: int, hidden: torch.Tensor, batch: _Batch) -> torch.Tensor:
        layer, shape, tokens = self._weights.layers[at], self._shape, len(hidden)
        normed = hidden if layer.attention_norm is None else self._norm(hidden, layer.attention_norm)
        qkv = batch.buffers.qkv[:tokens]
        if layer.qkv_bias is None:
            torch.mm(normed, layer.qkv, out=qkv)
        else:
            torch.addmm(layer.qkv_bias, normed, layer.qkv, out=qkv)
        if batch.loras is not None:
            batch.loras.add(at, "qkv", normed, qkv)
        heads = qkv.view(tokens, -1, shape.head_width)
        turned, values = heads[:, : shape.rotated_heads], heads[:, shape.rotated_heads :]
        if layer.head_norm is not None:
            turned = shape.normalize(turned, None, shape.norm_eps).mul_(layer.head_norm)
        rotate(turned, batch.rotations[layer.rope])
        turned, values = turned.transpose(0, 1), values.transpose(0, 1)
        context = batch.buffers.context[:tokens]
        out = context.view(tokens, shape.heads, shape.head_width)
        queries, keys = turned[: shape.heads], turned[shape.heads :]
        if batch.packed.front:
            self._attend.behind((queries, keys, values), out, batch.packed.lengths)
            return context
        self._attend(
            (queries, keys, values), out, batch.packed.lengths, layer.pattern, key_lengths=batch.packed.key_lengths
        )
        return context

    def _rest(
        self, layer: Layer, hidden: torch.Tensor, context: torch.Tensor, buffers: Buffers, add: Add | None
    ) -> torch.Tensor:
        more = None if add is None else partial(add, "out", context)
        hidden = self._add(hidden, context, layer.out, layer.attention_after, more)
        normed = self._norm(hidden, layer.inner_norm)
        inner = torch.mm(normed, layer.gate_up, out=buffers.inner[: len(hidden)])
        if add is not None:
            add("gate_up", normed, inner)
        gate, up = inner.chunk(2, dim=1)
        active = self._shape.activate(gate).mul_(up)
        more = None if add is None else partial(add, "down", active)
        return self._add(hidden, active, layer.down, layer.inner_after, more)

    def _add(
        self,
        hidden: torch.Tensor,
        states: torch.Tensor,
        matrix: torch.Tensor,
        after: torch.Tensor | None,
        more: Callable[[torch.Tensor], None] | None,
    ) -> torch.Tensor:
        """`hidden` and a step's product, which `more` adds to, normalised first if there is an `after`."""
        product = hidden.addmm_(states, matrix) if after is None else torch.mm(states, matrix)
        if more is not None:
            more(product)
        return product if after is None else hidden.add_(self._norm(product, after))

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._shape.normalize(hidden, weight, self._shape.norm_eps)


def shared_front(sequences: Sequence[Array]) -> int:
    """How many tokens all sequences begin with, of several; at least one of each is left over."""
    if len(sequences) == 1:
        return 0
    longest = min(map(len, sequences)) - 1
    alike = np.stack([each[:longest] for each in sequences]) == sequences[0][:longest]
    return int(np.logical_and.accumulate(alike.all(0)).sum())


def layer_norm(hidden: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Mean 0 and variance 1 over the last axis."""
    return functional.layer_norm(hidden, hidden.shape[-1:], weight, None, eps)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Mean square 1 over the last axis."""
    return functional.rms_norm(hidden, hidden.shape[-1:], weight, eps)
