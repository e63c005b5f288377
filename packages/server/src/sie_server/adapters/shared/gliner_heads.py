"""From words and labels to proposals: the two heads of published GLiNER models, in float32.

SPANS (Zaratiana et al., arXiv:2311.08526): a piece is told by its first and last word, and compared with each label.
TOKENS (NuNER Zero, arXiv:2402.15343): each word may be the first of a label's piece, the last, and inside one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.checkpoint import Checkpoint, Get
from sie_server.adapters.shared.gliner_config import SPANS, GlinerConfig
from sie_server.adapters.shared.spans import Spans
from sie_server.adapters.shared.torch_use import to_device

# A threshold near 0 proposes nearly every piece with every label; then these many of each window must do.
MAX_PROPOSALS: Final = 100_000
Shares = Sequence[tuple[int, slice]]  # of each window, how many words and which labels; windows may share labels


class Head(Protocol):
    """Scores words against labels."""

    def logits(self, words: torch.Tensor, labels: torch.Tensor, shares: Shares) -> Iterator[torch.Tensor]:
        """Of each window, from the words [all words, width] and the labels [all labels, width] of all."""

    def spans(self, logits: torch.Tensor, threshold: float) -> Spans:
        """The proposals above a threshold, from the logits of one window."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Weight [out, in] and bias."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return functional.linear(inputs, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Mlp:
    """Two linear layers with a ReLU in between."""

    inner: Linear
    outer: Linear

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return self.outer(self.inner(inputs).relu_())


@dataclass(frozen=True, slots=True)
class SpanHead:
    """Published models join the vectors of both ends and send every piece through an MLP of that double width.

    That MLP's first layer is a sum of one product for each end, so both are done once a word. Its second layer and the
    comparison with labels are two products in a row, so the small one, with the labels, is done first. `label` makes of
    a label's vector what pieces are compared with.
    """

    start: Mlp
    end: Mlp
    pair: Mlp
    label: Callable[[torch.Tensor], torch.Tensor]
    max_width: int

    def logits(self, words: torch.Tensor, labels: torch.Tensor, shares: Shares) -> Iterator[torch.Tensor]:
        """[words, widths, labels]; minus infinity for pieces beyond the last word."""
        width = words.shape[1]
        for_start, for_end = torch.split(self.pair.inner.weight, width, dim=1)
        firsts = functional.linear(self.start(words).relu_(), for_start, self.pair.inner.bias)
        lasts = functional.linear(self.end(words).relu_(), for_end)
        told = self.label(labels)
        weights, shifts = told @ self.pair.outer.weight, told @ self.pair.outer.bias
        parts = _by_window([words for words, _ in shares], firsts, lasts)
        of_labels = ((weights[rows], shifts[rows]) for _, rows in shares)
        for (first, last), (weight, shift) in zip(parts, of_labels, strict=True):
            logits = first.new_full((len(first), self.max_width, len(weight)), -torch.inf)
            for more in range(min(self.max_width, len(first))):
                inner = (first[: len(first) - more] + last[more:]).relu_()
                logits[: len(first) - more, more] = torch.addmm(shift, inner, weight.t())
            yield logits

    def vectors(self, words: torch.Tensor, firsts: torch.Tensor, lasts: torch.Tensor) -> torch.Tensor:
        """[pieces, width] of the pieces with these first and last words [pieces], of the words [words, width]."""
        return self.pair(torch.cat((self.start(words[firsts]), self.end(words[lasts])), 1).relu_())

    def spans(self, logits: torch.Tensor, threshold: float) -> Spans:
        """In order of first word, width, label."""
        scores = logits.sigmoid().cpu().numpy()
        firsts, widths, labels = np.nonzero(scores > threshold)
        spans = Spans(firsts, firsts + widths, labels, scores[firsts, widths, labels])
        if len(spans) <= MAX_PROPOSALS:
            return spans
        return spans.at(np.sort(np.argpartition(-spans.scores, MAX_PROPOSALS)[:MAX_PROPOSALS]))


@dataclass(frozen=True, slots=True)
class TokenHead:
    """For each word and label three logits: of a first word, of a last one, of one inside."""

    word: Linear
    label: Linear
    out: Mlp

    def logits(self, words: torch.Tensor, labels: torch.Tensor, shares: Shares) -> Iterator[torch.Tensor]:
        """[labels, words, 3]."""
        width = words.shape[1]
        for_word, for_label, for_both = torch.split(self.out.inner.weight, width, dim=1)
        alone, crossed = torch.split(self.word(words), width, dim=1)
        label_alone, label_crossed = torch.split(self.label(labels), width, dim=1)
        alone, label_alone = functional.linear(alone, for_word, self.out.inner.bias), label_alone @ for_label.t()
        parts = _by_window([words for words, _ in shares], alone, crossed)
        of_labels = ((label_alone[rows], label_crossed[rows]) for _, rows in shares)
        for (word, cross), (label, label_cross) in zip(parts, of_labels, strict=True):
            yield torch.stack(
                [
                    self.out.outer(torch.addmm(word + one, cross * factor, for_both.t()).relu_())
                    for one, factor in zip(label, label_cross, strict=True)
                ]
            )

    def spans(self, logits: torch.Tensor, threshold: float) -> Spans:
        """A piece is a first and a last word with only inside words from one to the other; its score is the least."""
        starts, ends, inside = logits.sigmoid().permute(2, 1, 0).cpu().numpy()
        places = np.argwhere(starts > threshold)
        ranked = places[np.argsort(-starts[tuple(places.T)], kind="stable")].tolist()  # a piece is no better than that
        pieces = (
            (first, label, last, min(starts[first, label], ends[last, label], least))
            for first, label in ranked
            for last, least in _run(inside[first:, label], ends[first:, label], first, threshold)
        )
        found = sorted(islice(pieces, MAX_PROPOSALS))
        firsts, labels, lasts = np.array([each[:3] for each in found], np.int64).reshape(-1, 3).T
        return Spans(firsts, lasts, labels, np.array([each[3] for each in found], np.float32))


def _by_window(counts: list[int], *parts: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The rows of each window, of all parts together."""
    return zip(*(torch.split(part, counts) for part in parts), strict=True)


def _run(inside: Array, ends: Array, first: int, threshold: float) -> Iterator[tuple[int, float]]:
    """Last words of pieces that begin at the first of these words, each with the least score inside."""
    outside = np.flatnonzero(inside < threshold)
    reach = outside[0] if len(outside) else len(inside)
    least = np.minimum.accumulate(inside[:reach])
    for step in np.flatnonzero(ends[:reach] > threshold):
        yield first + int(step), float(least[step])


@dataclass(frozen=True, slots=True)
class WordLayers:
    """What stands between the encoder and a head: a projection to another width, and an LSTM over a text's words."""

    projection: Linear | None
    recurrent: nn.LSTM | None

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """[..., encoder width] to float32 of [..., width]."""
        return vectors.float() if self.projection is None else self.projection(vectors.float())

    def at(self, hidden: torch.Tensor, places: Sequence[Array]) -> torch.Tensor:
        """The same of the states at some places, those of all sequences together."""
        return self.project(hidden[to_device(np.concatenate(places), hidden.device)])

    def in_order(self, words: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Words that know of those before and behind them; [all words, width] in and out."""
        if self.recurrent is None:
            return words
        packed = nn.utils.rnn.pack_sequence(list(torch.split(words, list(counts))), enforce_sorted=False)
        texts = nn.utils.rnn.unpack_sequence(self.recurrent(packed)[0])
        return torch.cat(texts)


def read_word_layers(
    tensors: Mapping[str, torch.Tensor], encoder_width: int, width: int, device: str, *, has_lstm: bool = True
) -> WordLayers:
    """The layers of a checkpoint. Models whose labels have an encoder of their own carry an LSTM that they never use.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, str, device).get
    projection = None if encoder_width == width else linear(get, "token_rep_layer.projection", encoder_width, width)
    layers = sum(name.startswith("rnn.lstm.weight_ih_l") and not name.endswith("reverse") for name in tensors)
    if not layers or not has_lstm:
        return WordLayers(projection, None)
    lstm = nn.LSTM(width, width // 2, layers, batch_first=True, bidirectional=True, device=device)
    lstm.load_state_dict({name: get(f"rnn.lstm.{name}", *old.shape) for name, old in lstm.state_dict().items()})
    return WordLayers(projection, lstm.eval().requires_grad_(False))


def read_head(tensors: Mapping[str, torch.Tensor], config: GlinerConfig, device: str) -> Head:
    """The head that the configuration names.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get, width = Checkpoint(tensors, str, device).get, config.width
    if config.mode == SPANS:
        told = mlp(get, "prompt_rep_layer", width, width)
        return read_span_head(get, "span_rep_layer.span_rep_layer", width, told, config.max_width)
    return TokenHead(
        word=linear(get, "scorer.proj_token", width, 2 * width),
        label=linear(get, "scorer.proj_label", width, 2 * width),
        out=Mlp(linear(get, "scorer.out_mlp.0", 3 * width, 4 * width), linear(get, "scorer.out_mlp.3", 4 * width, 3)),
    )


def read_span_head(
    get: Get, prefix: str, width: int, label: Callable[[torch.Tensor], torch.Tensor], max_width: int
) -> SpanHead:
    """The layers under a prefix.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    return SpanHead(
        start=mlp(get, f"{prefix}.project_start", width, width),
        end=mlp(get, f"{prefix}.project_end", width, width),
        pair=mlp(get, f"{prefix}.out_project", 2 * width, width),
        label=label,
        max_width=max_width,
    )


def linear(get: Get, name: str, inputs: int, outputs: int) -> Linear:
    """One layer of a checkpoint.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    return Linear(get(f"{name}.weight", outputs, inputs), get(f"{name}.bias", outputs))


def mlp(get: Get, name: str, inputs: int, outputs: int) -> Mlp:
    """Two layers of a checkpoint, the inner one four times as wide as what comes out.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    inner = 4 * outputs
    return Mlp(linear(get, f"{name}.0", inputs, inner), linear(get, f"{name}.3", inner, outputs))
