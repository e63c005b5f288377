"""How every two entities of a text are compared with relations, as GLiREL and the GLiNERs with relations do it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.gliner_heads import Mlp, SpanHead, mlp, read_span_head
from sie_server.adapters.shared.linear import identity
from sie_server.adapters.shared.relations import Triples, of_head
from sie_server.adapters.shared.spans import Spans
from sie_server.adapters.shared.torch_use import to_device

MAX_ENTITIES: Final = 256  # of one window: each two of them are compared, in both directions


def pair_logits(pair: Mlp, entities: torch.Tensor, relations: torch.Tensor) -> Iterator[torch.Tensor]:
    """[tails, relations] for each head in turn, among the tails the head itself, whose logits mean nothing.

    From vectors [entities, width] and [relations, width]. Published models join the vectors of both entities and send
    every pair through an MLP. As in GLiNER, its first layer is a sum of one product for each entity, and its second one
    and the comparison with relations are two products in a row, of which the small one, with the relations, is first.
    """
    weights, shifts = relations @ pair.outer.weight, relations @ pair.outer.bias
    for_head, for_tail = torch.split(pair.inner.weight, entities.shape[1], dim=1)
    heads = functional.linear(entities, for_head, pair.inner.bias)
    tails = functional.linear(entities, for_tail)
    # A head at a time: all pairs of many entities would take their square in memory.
    for head in heads:
        yield torch.addmm(shifts, (head + tails).relu_(), weights.t())


@dataclass(frozen=True, slots=True)
class PairHead:
    """The part of a GLiNER with relations that comes after its entities: what tells a piece, and what two of them."""

    piece: SpanHead
    pair: Mlp

    def triples(
        self, words: torch.Tensor, spans: Spans, numbers: Array, relations: torch.Tensor, threshold: float
    ) -> list[Triples]:
        """The proposals for each head, from words [words, width] of a window and relations [relations, width].

        `spans` are its entities, and `numbers` [entities] tell which of the whole text's they are.
        """
        if len(spans) < 2:  # noqa: PLR2004 - nothing to compare
            return []
        firsts, lasts = (to_device(each, words.device) for each in (spans.firsts, spans.lasts))
        logits = pair_logits(self.pair, self.piece.vectors(words, firsts, lasts), relations)
        every = len(relations)
        return [
            of_head(head, numbers, each.sigmoid().cpu().numpy(), threshold, every)
            for head, each in zip(numbers.tolist(), logits, strict=True)
        ]


def within(spans: Spans, first_word: int, words: int) -> Array:
    """The places of those proposals that lie in a window, each piece once, the best scored ones if there are many."""
    inside = np.flatnonzero((spans.firsts >= first_word) & (spans.lasts < first_word + words))
    pieces = (spans.firsts[inside] - first_word) * words + spans.lasts[inside] - first_word
    found = inside[np.sort(np.unique(pieces, return_index=True)[1])]
    return np.sort(found[np.argsort(-spans.scores[found], kind="stable")[:MAX_ENTITIES]])


def of_window(spans: Spans, places: Sequence[int] | Array, first_word: int) -> Spans:
    """Some proposals, with words counted from the first one of a window."""
    some = spans.at(np.asarray(places))
    return Spans(some.firsts - first_word, some.lasts - first_word, some.labels, some.scores)


def read_pair_head(tensors: Mapping[str, torch.Tensor], width: int, max_width: int, device: str) -> PairHead:
    """The layers of a checkpoint.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, str, device).get
    piece = read_span_head(get, "span_rep_layer.span_rep_layer", width, identity, max_width)
    return PairHead(piece, mlp(get, "pair_rep_layer", 2 * width, width))
