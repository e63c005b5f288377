"""Relations that a model proposes, and which of them are kept. Counts entities; knows nothing of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sie_protocol.arrays import Array


@dataclass(frozen=True, slots=True)
class Triples:
    """Proposals: numbers of head, tail and relation, each int64, and score, float32; all of shape [proposals]."""

    heads: Array
    tails: Array
    relations: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Array) -> "Triples":
        """The proposals at these places, in their order."""
        return Triples(self.heads[places], self.tails[places], self.relations[places], self.scores[places])


def of_head(head: int, tails: Array, scores: Array, threshold: float, top_k: int) -> Triples:
    """For one head, of scores [tails, relations]: with each other tail the `top_k` best that are above a threshold."""
    allowed = (scores > threshold) & (tails != head)[:, None]
    if scores.shape[1] > top_k:
        best = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
        among = np.zeros_like(allowed)
        np.put_along_axis(among, best, values=True, axis=1)
        allowed &= among
    rows, relations = np.nonzero(allowed)
    return Triples(np.full(len(rows), head), tails[rows], relations, scores[rows, relations])


def strongest(parts: Sequence[Triples], top_k: int, most: int) -> Triples:
    """The best first: of equal proposals one, of each head and tail at most `top_k`, and of all at most `most`."""
    whole = Triples(
        np.concatenate([each.heads for each in parts]),
        np.concatenate([each.tails for each in parts]),
        np.concatenate([each.relations for each in parts]),
        np.concatenate([each.scores for each in parts]),
    )
    ranked = whole.at(np.argsort(-whole.scores, kind="stable"))
    tails, relations = (int(each.max(initial=-1)) + 1 for each in (ranked.tails, ranked.relations))
    keys = (ranked.heads * tails + ranked.tails) * relations + ranked.relations
    ranked = ranked.at(np.sort(np.unique(keys, return_index=True)[1]))
    pairs = ranked.heads * tails + ranked.tails
    by_pair = np.argsort(pairs, kind="stable")
    _, starts, counts = np.unique(pairs[by_pair], return_index=True, return_counts=True)
    ranks = np.arange(len(ranked)) - np.repeat(starts, counts)
    return ranked.at(np.sort(by_pair[ranks < top_k])[:most])
