"""A BERT encoder over packed batches: the tokens of all sequences in one row of memory, no padding anywhere.

Matrix products over all tokens of a batch run at the hardware's peak, so what is left to save is memory traffic:
buffers are kept per thread and reused, residual sums are folded into the products, and when only the first token of
each sequence is pooled the last block computes nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.attention import Attention
from sie_server.adapters.shared.bert_weights import BertShape, BertWeights, Layer, Norm
from sie_server.adapters.shared.buffers import Buffers, ThreadBuffers
from sie_server.adapters.shared.distance_bias import Bias, bias_of
from sie_server.adapters.shared.linear import gelu_
from sie_server.adapters.shared.lora import Add, Lora, Mixture, Targets, adding, mix
from sie_server.adapters.shared.rope import rotate, rotations
from sie_server.adapters.shared.torch_use import to_device


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of all sequences, one after the other, and the position of each token in its sequence.

    `key_lengths`: how many tokens of each sequence the others look at; None: all.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    lengths: list[int]
    key_lengths: list[int] | None = None


def pack(sequences: Sequence[Array], device: str, key_lengths: list[int] | None = None) -> Packed:
    """Lay int64 token id arrays out one after the other."""
    lengths = np.array([len(each) for each in sequences])
    if key_lengths == lengths.tolist():
        key_lengths = None  # where everything is seen, the plain way is the faster one
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    ids, places = (
        to_device(np.concatenate(sequences), device),
        (to_device(positions, device), to_device(starts, device)),
    )
    return Packed(ids, *places, lengths.tolist(), key_lengths)


@dataclass(frozen=True, slots=True)
class _Batch:
    packed: Packed
    buffers: Buffers
    rotations: torch.Tensor | None
    bias: Bias | None
    loras: Mixture | None


class PackedBert:
    """The encoder. `encode` may run in several threads at once: each has buffers of its own."""

    def __init__(self, shape: BertShape, weights: BertWeights, device: str, targets: Targets | None = None) -> None:
        self.targets = targets
        self._shape = shape
        self._weights = weights
        self._device = device
        self._attend = Attention(device)
        inner = shape.inner if shape.gate is None else 2 * shape.inner
        self._buffers = ThreadBuffers(device, qkv=3 * shape.width, context=shape.width, inner=inner)

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
        """Hidden states of the last block for int64 token id arrays.

        Without `types` every token is of type 0; with `key_lengths` tokens look at so many of their sequence only;
        `loras` are those of the sequences.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """
        packed, shape, weights = pack(sequences, self._device, key_lengths), self._shape, self._weights
        hidden = functional.embedding(packed.ids, weights.words)
        if weights.positions is not None:
            hidden.add_(functional.embedding(packed.positions, weights.positions))
        kinds = None if types is None else to_device(np.concatenate(types), self._device)
        if kinds is not None:
            hidden.add_(functional.embedding(kinds, weights.types))
        mixed = mix(loras, packed.lengths, self._device)
        if mixed is not None:
            mixed.look_up("words", packed.ids, hidden)
            mixed.look_up("types", torch.zeros_like(packed.ids) if kinds is None else kinds, hidden)
        hidden = normalize(hidden, weights.norm, shape.norm_eps)
        by = None if shape.rope is None else rotations(packed.positions, shape.rope, shape.head_width)
        bias = None if weights.distances is None else bias_of(weights.distances, max(packed.lengths))
        batch = _Batch(packed, self._buffers.of(len(hidden), hidden.dtype), by, bias, mixed)
        last = len(weights.layers) - 1
        for at in range(last):
            hidden = self._block(at, hidden, batch)
        if not first_only:
            return self._block(last, hidden, batch), packed.lengths
        context, ones = self._attention(last, hidden, batch), [1] * len(packed.lengths)
        firsts = hidden[packed.starts], context[packed.starts]
        add = adding(mix(loras, ones, self._device), last)
        return finish_block(weights.layers[last], *firsts, batch.buffers, shape.norm_eps, add), ones

    def _block(self, at: int, hidden: torch.Tensor, batch: _Batch) -> torch.Tensor:
        context, add = self._attention(at, hidden, batch), adding(batch.loras, at)
        return finish_block(self._weights.layers[at], hidden, context, batch.buffers, self._shape.norm_eps, add)

    def _attention(self, at: int, hidden: torch.Tensor, batch: _Batch) -> torch.Tensor:
        layer, shape, tokens, packed = self._weights.layers[at], self._shape, len(hidden), batch.packed
        qkv = torch.addmm(layer.qkv_bias, hidden, layer.qkv, out=batch.buffers.qkv[:tokens])
        if batch.loras is not None:
            batch.loras.add(at, "qkv", hidden, qkv)
        if layer.extra_norms is not None:
            for part, norm in zip(qkv.chunk(3, dim=1), layer.extra_norms[:2], strict=False):
                part.copy_(normalize(part, norm, shape.norm_eps))
        by_head = qkv.view(tokens, 3, shape.heads, shape.head_width)
        if batch.rotations is not None:
            rotate(by_head[:, :2].flatten(1, 2), batch.rotations)
        heads = by_head.permute(1, 2, 0, 3)
        context = batch.buffers.context[:tokens]
        out = context.view(tokens, shape.heads, shape.head_width)
        self._attend(heads.unbind(), out, packed.lengths, key_lengths=packed.key_lengths, bias=batch.bias)
        return context


def finish_block(
    layer: Layer,
    hidden: torch.Tensor,
    context: torch.Tensor,
    buffers: Buffers,
    eps: float,
    add: Add | None = None,
) -> torch.Tensor:
    """What follows attention in a block that normalises after each step; writes over `hidden`. `add` is LoRAs'."""
    before = None if layer.extra_norms is None else hidden.clone()
    hidden.add_(layer.out_bias).addmm_(context, layer.out)
    if add is not None:
        add("out", context, hidden)
    hidden = normalize(hidden, layer.attention_norm, eps)
    if layer.extra_norms is not None and before is not None:
        hidden = normalize(hidden.add_(before), layer.extra_norms[2], eps)
    if layer.experts is not None:
        return normalize(hidden.add_(layer.experts(hidden)), layer.output_norm, eps)
    inner = torch.addmm(layer.up_bias, hidden, layer.up, out=buffers.inner[: len(hidden)])
    if add is not None:
        add("up", hidden, inner)
    if layer.gate is None:
        gelu_(inner)
    else:
        gate, up = inner.chunk(2, dim=1)
        inner = layer.gate(gate).mul_(up)
    hidden.add_(layer.down_bias).addmm_(inner, layer.down)
    if add is not None:
        add("down", inner, hidden)
    return normalize(hidden, layer.output_norm, eps)


def normalize(hidden: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
    """Layer normalisation of each row."""
    return functional.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, eps)
