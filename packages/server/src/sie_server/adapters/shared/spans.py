"""Pieces of a text that a model proposes, and which of them are kept. Counts in words; knows nothing of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sie_protocol.arrays import Array


@dataclass(frozen=True, slots=True)
class Spans:
    """Proposals: first and last word, number of the label, each int64, and score, float32; all of shape [proposals]."""

    firsts: Array
    lasts: Array
    labels: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Array) -> "Spans":
        """The proposals at these places, in their order."""
        return Spans(self.firsts[places], self.lasts[places], self.labels[places], self.scores[places])


def join(parts: Sequence[tuple[int, Spans]]) -> Spans:
    """Proposals of parts of a text, each with the number of its first word; of equal ones the best scored stays."""
    whole = Spans(
        np.concatenate([spans.firsts + start for start, spans in parts]),
        np.concatenate([spans.lasts + start for start, spans in parts]),
        np.concatenate([spans.labels for _, spans in parts]),
        np.concatenate([spans.scores for _, spans in parts]),
    )
    if len(parts) == 1:
        return whole
    ranked = whole.at(np.argsort(-whole.scores, kind="stable"))
    words, labels = (int(each.max(initial=-1)) + 1 for each in (ranked.lasts, ranked.labels))
    keys = (ranked.firsts * words + ranked.lasts) * labels + ranked.labels
    return ranked.at(np.unique(keys, return_index=True)[1])


def choose(spans: Spans, *, flat: bool, multi_label: bool) -> Spans:
    """The best scored proposals that do not get in each other's way, by first word.

    Two pieces that share words do, unless one lies inside the other and `flat` is off. A piece has its best label, or
    with `multi_label` all that were proposed. Of proposals with equal scores the earlier one is preferred.
    """
    ranked = spans.at(np.argsort(-spans.scores, kind="stable"))
    # What decides about a piece is its best label alone: what gets in its way then, gets in the way of the others too.
    words = int(ranked.lasts.max(initial=-1)) + 1
    _, best, piece = np.unique(ranked.firsts * words + ranked.lasts, return_index=True, return_inverse=True)
    order = np.sort(best)
    kept = order[_fitting(ranked.at(order), words, flat=flat)]
    winners = ranked.at(np.flatnonzero(np.isin(piece, piece[kept])) if multi_label else kept)
    return winners.at(np.argsort(winners.firsts, kind="stable"))


def _fitting(pieces: Spans, words: int, *, flat: bool) -> Array:
    """For each of these different pieces whether it fits to those before it that do; bool of shape [pieces]."""
    taken = np.zeros(words, np.bool_)
    earliest = np.full(words, words)  # first word of any fitting piece that ends here
    latest = np.full(words, -1)  # last word of any that begins here
    fits = np.zeros(len(pieces), np.bool_)
    for place, (first, last) in enumerate(zip(pieces.firsts.tolist(), pieces.lasts.tolist(), strict=True)):
        if flat:
            clash = taken[first : last + 1].any()
        else:
            clash = (earliest[first:last] < first).any() or (latest[first + 1 : last + 1] > last).any()
        if not clash:
            fits[place] = taken[first : last + 1] = True
            earliest[last], latest[first] = min(earliest[last], first), max(latest[first], last)
    return fits
