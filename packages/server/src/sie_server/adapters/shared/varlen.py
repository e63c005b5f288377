"""A BERT encoder over packed batches: the tokens of all sequences in one row of memory, no padding anywhere.

Matrix products over all tokens of a batch run at the hardware's peak, so what is left to save is memory traffic:
buffers are kept per thread and reused, residual sums are folded into the products, and when only the first token of
each sequence is pooled the last block computes nothing else.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.bert_weights import BertShape, BertWeights, Layer, Norm
from sie_server.adapters.shared.expansion import attend_seen

# Up to here one product per head with all scores in memory is as fast as the fused kernel, and starts sooner.
PLAIN_ATTENTION_TOKENS = 128
BUFFER_STEP_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of all sequences, one after the other, and the position of each token in its sequence.

    `seen`: how many tokens of each sequence the others look at; None: all.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    lengths: list[int]
    seen: list[int] | None = None


def pack(sequences: Sequence[Array], device: str, seen: list[int] | None = None) -> Packed:
    """Lay int64 token id arrays out one after the other."""
    lengths = np.array([len(each) for each in sequences])
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    ids = torch.from_numpy(np.concatenate(sequences)).to(device)
    places = torch.from_numpy(positions).to(device), torch.from_numpy(starts).to(device)
    return Packed(ids, *places, lengths.tolist(), seen)


@dataclass(frozen=True, slots=True)
class Buffers:
    """Memory of one thread for the largest batch it has seen: [tokens, ...] each."""

    qkv: torch.Tensor
    context: torch.Tensor
    inner: torch.Tensor


class PackedBert:
    """The encoder. `encode` may run in several threads at once: each has buffers of its own."""

    def __init__(self, shape: BertShape, weights: BertWeights, device: str) -> None:
        self._shape = shape
        self._weights = weights
        self._device = device
        self._attend = attend_each if device == "cpu" else attend_padded
        self._local = threading.local()

    @torch.inference_mode()
    def encode(
        self, sequences: Sequence[Array], *, first_only: bool = False, seen: list[int] | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """Hidden states of the last block for int64 token id arrays; tokens look at the first `seen` of their sequence.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """
        # Where everything is seen, the plain way is the faster one.
        batch = pack(sequences, self._device, None if seen == [len(each) for each in sequences] else seen)
        weights = self._weights
        hidden = functional.embedding(batch.ids, weights.words)
        hidden = self._norm(hidden.add_(functional.embedding(batch.positions, weights.positions)), weights.norm)
        buffers = self._buffers(len(hidden), hidden.dtype)
        for layer in weights.layers[:-1]:
            hidden = self._block(layer, hidden, batch, buffers)
        if not first_only:
            return self._block(weights.layers[-1], hidden, batch, buffers), batch.lengths
        context = self._attention(weights.layers[-1], hidden, batch, buffers)
        firsts = self._rest(weights.layers[-1], hidden[batch.starts], context[batch.starts], buffers)
        return firsts, [1] * len(batch.lengths)

    def _block(self, layer: Layer, hidden: torch.Tensor, batch: Packed, buffers: Buffers) -> torch.Tensor:
        return self._rest(layer, hidden, self._attention(layer, hidden, batch, buffers), buffers)

    def _attention(self, layer: Layer, hidden: torch.Tensor, batch: Packed, buffers: Buffers) -> torch.Tensor:
        shape, tokens = self._shape, len(hidden)
        qkv = torch.addmm(layer.qkv_bias, hidden, layer.qkv, out=buffers.qkv[:tokens])
        heads = qkv.view(tokens, 3, shape.heads, shape.head_width).permute(1, 2, 0, 3)
        context = buffers.context[:tokens]
        out = context.view(tokens, shape.heads, shape.head_width)
        if batch.seen is None:
            self._attend(heads, out, batch.lengths)
        else:
            attend_seen(heads, out, batch.lengths, batch.seen)
        return context

    def _rest(self, layer: Layer, hidden: torch.Tensor, context: torch.Tensor, buffers: Buffers) -> torch.Tensor:
        hidden = self._norm(hidden.add_(layer.out_bias).addmm_(context, layer.out), layer.attention_norm)
        inner = torch.addmm(layer.up_bias, hidden, layer.up, out=buffers.inner[: len(hidden)])
        torch.ops.aten.gelu_.default(inner)  # a GELU in place has no public name
        return self._norm(hidden.add_(layer.down_bias).addmm_(inner, layer.down), layer.output_norm)

    def _norm(self, hidden: torch.Tensor, norm: Norm) -> torch.Tensor:
        return functional.layer_norm(hidden, (self._shape.width,), norm.weight, norm.bias, self._shape.norm_eps)

    def _buffers(self, tokens: int, dtype: torch.dtype) -> Buffers:
        buffers: Buffers | None = getattr(self._local, "buffers", None)
        if buffers is not None and len(buffers.qkv) >= tokens:
            return buffers
        rows, width = -(-tokens // BUFFER_STEP_TOKENS) * BUFFER_STEP_TOKENS, self._shape.width
        sizes = (3 * width, width, self._shape.inner)
        grown = Buffers(*(torch.empty(rows, size, dtype=dtype, device=self._device) for size in sizes))
        self._local.buffers = grown
        return grown


def attend_each(heads: torch.Tensor, out: torch.Tensor, lengths: list[int]) -> None:
    """Attention inside each sequence, one after the other: no work on padding, at one call per sequence.

    `heads` is [3, heads, tokens, head width] with scaled queries; `out` is [tokens, heads, head width].
    """
    queries, keys, values = (torch.split_with_sizes(part, lengths, dim=1) for part in heads)
    for query, key, value, target in zip(queries, keys, values, torch.split_with_sizes(out, lengths), strict=True):
        if len(target) <= PLAIN_ATTENTION_TOKENS:
            scores = torch.softmax(torch.bmm(query, key.transpose(1, 2)), dim=-1)
            context = torch.bmm(scores, value)
        else:
            context = functional.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
        target.copy_(context.transpose(0, 1))


def attend_padded(heads: torch.Tensor, out: torch.Tensor, lengths: list[int]) -> None:
    """The same in one masked call over a padded copy: for devices on which a call costs more than padding."""
    count, longest = len(lengths), max(lengths)
    sizes = torch.tensor(lengths, device=heads.device)
    mask = torch.arange(longest, device=heads.device)[None, :] < sizes[:, None]
    padded = heads.new_zeros(count, longest, 3, *heads.shape[1::2])
    padded[mask] = heads.permute(2, 0, 1, 3)
    query, key, value = padded.permute(2, 0, 3, 1, 4)
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :], scale=1.0)
    out.copy_(context.transpose(1, 2)[mask])
