"""What token classifiers share: all but the arithmetic, which may be that of torch or of ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import Entity, Input, Labelled, Prepared, UnsupportedInputError, labelled_texts
from sie_server.adapters.shared.chunks import chunks
from sie_server.adapters.shared.token_labels import Tag, Wanted, find_entities, read_tags, wanted_labels
from sie_server.adapters.shared.windows import DEFAULT_STRIDE, WindowedText, WindowTokenizer

DEFAULT_STRATEGY = "first"

# Sequences of token ids in, the probabilities [tokens, classes] of each out.
Classify = Callable[[list[Array]], Sequence[Array]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One prepared text, and what is wanted of it."""

    text: str
    windowed: WindowedText
    wanted: Wanted


class TokenReader:
    """Reads texts, and turns the probabilities of their tokens into entities.

    Options of a request: `threshold` (0), `aggregation_strategy` (`first`), `stride` (64 tokens, or half of what a
    short model reads).
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], max_length: int) -> None:
        self._tokenizer = WindowTokenizer(folder, max_length)
        self._tags: tuple[Tag, ...] = read_tags(config)

    @property
    def classes(self) -> int:
        """How many a model must tell apart."""
        return len(self._tags)

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        """`payload` is a Reading; its tokens are those of all windows, special and shared ones included.

        Raises:
            UnsupportedInputError: no text, a label that the model does not have, or a stride that is too long.
        """
        texts = labelled_texts(inputs)
        labels = {each.labels: wanted_labels(self._tags, each.labels) for each in texts}
        read = self._tokenizer.read([each.text for each in texts], [self._stride(each) for each in texts])
        return [
            Prepared(
                sum(map(len, windowed.sequences)),
                truncated=False,
                payload=Reading(each.text, windowed, _wanted(each, labels[each.labels])),
            )
            for each, windowed in zip(texts, read, strict=True)
        ]

    def entities(self, batch: Sequence[Prepared], classify: Classify, limit: int) -> list[tuple[Entity, ...]]:
        """The entities of each text; `classify` is asked for at most `limit` tokens at a time."""
        readings: list[Reading] = [each.payload for each in batch]
        sequences = [each for reading in readings for each in reading.windowed.sequences]
        rows: list[Array] = [np.empty(0)] * len(sequences)
        for places in chunks([len(each) for each in sequences], limit):
            for place, probabilities in zip(places, classify([sequences[at] for at in places]), strict=True):
                rows[place] = probabilities
        left = iter(rows)
        return [self._found(each, [next(left) for _ in each.windowed.windows]) for each in readings]

    def _found(self, reading: Reading, rows: Sequence[Array]) -> tuple[Entity, ...]:
        windowed = reading.windowed
        probabilities = windowed.joined(rows)
        return find_entities(reading.text, windowed.spans, windowed.words, probabilities, self._tags, reading.wanted)

    def _stride(self, text: Labelled) -> int:
        longest = self._tokenizer.room // 2
        stride = text.options.get("stride")
        if stride is not None and stride > longest:
            raise UnsupportedInputError(f"options.stride is {stride}; windows of the model may share {longest} tokens")
        return min(DEFAULT_STRIDE, longest) if stride is None else int(stride)


def _wanted(text: Labelled, labels: Mapping[str, str]) -> Wanted:
    options = text.options
    return Wanted(labels, float(options.get("threshold", 0.0)), options.get("aggregation_strategy", DEFAULT_STRATEGY))
