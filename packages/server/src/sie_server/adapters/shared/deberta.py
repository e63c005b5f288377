"""A DeBERTa encoder (v2, v3 and multilingual v3) over packed batches.

A score is the sum of three products: the key with the query, the distance between both with the query, and the distance
with the key (He et al., "DeBERTa", arXiv:2006.03654). Distances enter no other place: there are no absolute positions.
What the two products with distances need is a table for each layer, projected when the model is loaded. Between a query
and a key there are 2 x tokens - 1 distances, and the next query has the same ones, moved by one key. So a product with
the table's rows in that order, read with a row length one short, is the matrix of all pairs: nothing is gathered.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.bert_weights import Layer
from sie_server.adapters.shared.buffers import Buffers, ThreadBuffers
from sie_server.adapters.shared.deberta_weights import DebertaShape, DebertaWeights, Distances
from sie_server.adapters.shared.lora import Lora
from sie_server.adapters.shared.padding import Padding, Paddings
from sie_server.adapters.shared.varlen import Packed, finish_block, pack

# Scores of so many pairs, all heads of a group together, stay in a core's cache while three products add up to them.
PAIRS_AT_ONCE = 2**18


class PackedDeberta:
    """The encoder. `encode` may run in several threads at once: each has buffers of its own."""

    targets: Final = None  # it is not run with LoRAs

    def __init__(self, shape: DebertaShape, weights: DebertaWeights, device: str) -> None:
        self._shape = shape
        self._weights = weights
        self._device = device
        self._paddings = None if device == "cpu" else Paddings()
        self._buffers = ThreadBuffers(device, qkv=3 * shape.width, context=shape.width, inner=shape.inner)

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
        """Hidden states of the last block for int64 token id arrays; tokens have no types, and all are seen.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """
        assert types is None, "an encoder without token types gets none"  # noqa: S101 - a bug of the caller
        assert loras is None, "without targets nobody has any"  # noqa: S101 - the same
        assert key_lengths is None, "no model of this kind fills its inputs up"  # noqa: S101 - the same
        batch, weights, shape = pack(sequences, self._device), self._weights, self._shape
        words = functional.embedding(batch.ids, weights.words)
        hidden = functional.layer_norm(words, (shape.width,), weights.norm.weight, weights.norm.bias, shape.norm_eps)
        buffers = self._buffers.of(len(hidden), hidden.dtype)
        rows = distance_rows(max(batch.lengths), shape).to(self._device)
        *before, last = zip(weights.layers, weights.distances, strict=True)
        for layer, distances in before:
            context = self._attention(layer, _in_order(distances, rows), hidden, batch, buffers)
            hidden = finish_block(layer, hidden, context, buffers, shape.norm_eps)
        layer, distances = last
        context, lengths = self._attention(layer, _in_order(distances, rows), hidden, batch, buffers), batch.lengths
        if first_only:
            hidden, context, lengths = hidden[batch.starts], context[batch.starts], [1] * len(lengths)
        return finish_block(layer, hidden, context, buffers, shape.norm_eps), lengths

    def _attention(
        self, layer: Layer, distances: Distances, hidden: torch.Tensor, batch: Packed, buffers: Buffers
    ) -> torch.Tensor:
        shape, tokens = self._shape, len(hidden)
        qkv = torch.addmm(layer.qkv_bias, hidden, layer.qkv, out=buffers.qkv[:tokens])
        heads = qkv.view(tokens, 3, shape.heads, shape.head_width).permute(1, 2, 0, 3)
        context = buffers.context[:tokens]
        out = context.view(tokens, shape.heads, shape.head_width)
        if self._paddings is None:
            attend_each(heads, distances, out, batch.lengths)
        else:
            attend_padded(heads, distances, out, self._paddings.of(batch.lengths, out.device))
        return context


def distance_rows(tokens: int, shape: DebertaShape) -> torch.Tensor:
    """The row of the table for each distance from 1 - tokens to tokens - 1, a query's place less a key's."""
    # In float32 and step by step as the published models were trained: steps of the logarithm are rounded up.
    distance = torch.arange(1 - tokens, tokens)
    if shape.buckets > 0:
        middle = shape.buckets // 2
        far = distance.abs().clamp(min=middle)
        steps = torch.log(far / middle) / torch.log(torch.tensor((shape.max_distance - 1) / middle)) * (middle - 1)
        bucket = (torch.ceil(steps) + middle).long() * distance.sign()
        distance = torch.where(distance.abs() <= middle, distance, bucket)
    return (distance + shape.span).clamp_(0, 2 * shape.span - 1)


def attend_each(heads: torch.Tensor, distances: Distances, out: torch.Tensor, lengths: list[int]) -> None:
    """Attention inside each sequence of a packed batch, one after the other.

    `heads` is [3, heads, tokens, head width] with scaled queries, `out` [tokens, heads, head width]; `distances` has a
    row for each distance in the longest sequence: for keys from the greatest to the least, for queries upwards.
    """
    sequences = zip(torch.split_with_sizes(heads, lengths, dim=2), torch.split_with_sizes(out, lengths), strict=True)
    for parts, target in sequences:
        tokens = len(target)
        group = max(1, PAIRS_AT_ONCE // tokens**2)
        for first in range(0, heads.shape[1], group):
            chosen = slice(first, first + group)
            query, key, value = parts[:, chosen].unsqueeze(2)
            scores = _scores(query, key, _between(distances, chosen, tokens))
            context = torch.bmm(scores.softmax(-1).flatten(0, 1), value.flatten(0, 1))
            target[:, chosen] = context.transpose(0, 1)


def attend_padded(heads: torch.Tensor, distances: Distances, out: torch.Tensor, padding: Padding) -> None:
    """The same over a padded copy."""
    query, key, value = (padding.spread(part).transpose(0, 1) for part in heads)
    scores = _scores(query, key, distances).masked_fill_(~padding.real[None, :, None, :], -torch.inf)
    out.copy_(padding.gather(torch.matmul(scores.softmax(-1), value).transpose(0, 1)))


def _scores(query: torch.Tensor, key: torch.Tensor, distances: Distances) -> torch.Tensor:
    """Of [heads, sequences, tokens, head width]: [heads, sequences, queries, keys]."""
    scores = torch.matmul(query, key.transpose(-1, -2))
    if distances.keys is not None:
        scores += _pairs(query, distances.keys)
    if distances.queries is not None:
        scores += _pairs(key, distances.queries).transpose(-1, -2)
    return scores


def _pairs(content: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[heads, sequences, tokens, tokens]: at (i, j) the product of token i with row j - i, counted from the middle."""
    heads, sequences, tokens, width = content.shape
    products = torch.bmm(content.reshape(heads, -1, width), rows.transpose(1, 2))
    line = rows.shape[1]
    strides = (sequences * tokens * line, tokens * line, line - 1, 1)
    return products.as_strided((heads, sequences, tokens, tokens), strides, tokens - 1)


def _in_order(distances: Distances, rows: torch.Tensor) -> Distances:
    """A row for each distance in place of one for each bucket; keys from the greatest to the least, queries upwards."""
    keys, queries = distances.keys, distances.queries
    return Distances(None if keys is None else keys[:, rows.flip(0)], None if queries is None else queries[:, rows])


def _between(distances: Distances, heads: slice, tokens: int) -> Distances:
    """The rows that so many tokens need, which stand in the middle."""

    def middle(rows: torch.Tensor | None) -> torch.Tensor | None:
        return None if rows is None else rows[heads].narrow(1, rows.shape[1] // 2 - tokens + 1, 2 * tokens - 1)

    return Distances(middle(distances.keys), middle(distances.queries))
