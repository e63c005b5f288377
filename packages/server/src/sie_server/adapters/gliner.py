"""Entities of any kind, named by the caller: GLiNER (arXiv:2311.08526) and NuNER Zero (arXiv:2402.15343).

Labels and text are read together by an encoder of `shared.architectures`, or in bi-encoders each by one of its own
(`shared.gliner_labels`); `shared.gliner_heads` says what is an entity.
Options, of the model and of a request: `threshold`, `flat_ner`, `multi_label`, `merge_adjacent_entities`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import torch

from sie_server.adapters.base import (
    Capabilities,
    Entity,
    Input,
    Labelled,
    Outputs,
    Prepared,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliner_config import read_gliner_config
from sie_server.adapters.shared.gliner_heads import Head, WordLayers, read_head, read_word_layers
from sie_server.adapters.shared.gliner_labels import LabelVectors, read_label_vectors
from sie_server.adapters.shared.gliner_reader import Bounds, GlinerReader, Reading, layout_of
from sie_server.adapters.shared.held import fitting
from sie_server.adapters.shared.spans import Spans, choose, join
from sie_server.adapters.shared.torch_use import precision
from sie_server.adapters.shared.vector_cache import Key
from sie_server.adapters.shared.weights import locate, read_json, read_tensors

# Relative positions have no end, but attention costs the square: enough for a window of words that are long ones.
WINDOW_TOKENS: Final = 4096
# Tokens of one text over all its windows, where the catalogue does not say.
TEXT_TOKENS: Final = 16384
_ENCODER: Final = "token_rep_layer.bert_layer.model."


@dataclass(frozen=True, slots=True)
class Choice:
    """Which proposals become entities."""

    threshold: float = 0.5
    flat_ner: bool = True
    multi_label: bool = False
    merge_adjacent_entities: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One text on its way through the model; `labels` are tokenised where they have an encoder of their own."""

    asked: Labelled
    choice: Choice
    reading: Reading
    labels: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    reader: GlinerReader
    encoder: Encoder
    layers: WordLayers
    head: Head
    labels: LabelVectors | None


class GlinerAdapter(ModelAdapter[Loaded]):
    """An encoder that reads labels and text together, and a head that compares them; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Entities; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"entities"}), pads=self._held.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        source = self._spec.source
        folder = locate(source)
        config = read_gliner_config(read_json(folder / "gliner_config.json"))
        architecture = read_architecture(config.encoder)
        window = WINDOW_TOKENS if architecture.relative else architecture.positions
        bounds = Bounds(window, self._spec.max_sequence_length or TEXT_TOKENS)
        reader = GlinerReader(folder, layout_of(config), bounds)
        tensors = read_tensors(folder, allow_pickle=source.allow_pickle)
        of_encoder = {name.removeprefix(_ENCODER): each for name, each in tensors.items() if name.startswith(_ENCODER)}
        dtype = precision(self._spec.precision, device)
        with fitting(device):
            encoder = architecture.build(of_encoder, device, dtype)
            layers = read_word_layers(
                tensors, architecture.width, config.width, device, has_lstm=config.labels_encoder is None
            )
            head = read_head(tensors, config, device)
            labels = read_label_vectors(folder, tensors, config, device, dtype)
        self._held.fill(Loaded(reader, encoder, layers, head, labels), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Labels and words as token ids, a long text in several windows.

        Raises:
            UnsupportedInputError: no labels, too many for the model, or something else than a text with labels.
        """
        texts, loaded = labelled_texts(inputs), self._held.parts()
        choices = [read_choice({**self._spec.options, **each.options}) for each in texts]
        readings = loaded.reader.read(texts)
        sets = {each.labels: loaded.labels.read(each.labels) for each in texts} if loaded.labels else {}
        tasks = [
            Task(text, choice, reading, sets.get(text.labels, ()))
            for text, choice, reading in zip(texts, choices, readings, strict=True)
        ]
        return [
            Prepared(sum(len(window.ids) for window in task.reading.windows) + extra, task.reading.truncated, task)
            for task, extra in zip(tasks, _label_tokens(loaded, tasks), strict=True)
        ]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The entities of each text by first character."""
        loaded = self._held.with_threads(threads)
        tasks: list[Task] = [each.payload for each in batch]
        spans = iter(_proposals(loaded, tasks) if any(task.reading.windows for task in tasks) else ())
        found = []
        for task in tasks:
            parts = [(window.first_word, next(spans)) for window in task.reading.windows]
            found.append(entities_of(task, join(parts)) if parts else ())
        return {"entities": found}


@torch.inference_mode()
def _proposals(loaded: Loaded, tasks: Sequence[Task]) -> list[Spans]:
    """Of each window of each task."""
    windows = [(task, window) for task in tasks for window in task.reading.windows]
    hidden, lengths = loaded.encoder.encode([window.ids for _, window in windows], first_only=False)
    starts = np.cumsum([0, *lengths[:-1]])
    placed = list(zip(starts, windows, strict=True))
    words = [start + window.words for start, (_, window) in placed]
    of_words = loaded.layers.in_order(loaded.layers.at(hidden, words), [len(each) for each in words])
    if loaded.labels is None:
        of_labels = loaded.layers.at(hidden, [start + task.reading.labels for start, (task, _) in placed])
        rows = _slices([len(task.reading.labels) for task, _ in windows])
    else:
        sets = {task.asked.labels: task.labels for task, _ in windows}
        of_labels = loaded.labels.of([each for labels in sets.values() for each in labels])
        places = dict(zip(sets, _slices([len(labels) for labels in sets]), strict=True))
        rows = [places[task.asked.labels] for task, _ in windows]
    logits = loaded.head.logits(of_words, of_labels, list(zip(map(len, words), rows, strict=True)))
    thresholds = (task.choice.threshold for task, _ in windows)
    return [loaded.head.spans(each, threshold) for each, threshold in zip(logits, thresholds, strict=True)]


def _slices(counts: Sequence[int]) -> list[slice]:
    """Where each of some groups of so many rows stands."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]


def _label_tokens(loaded: Loaded, tasks: Sequence[Task]) -> list[int]:
    """What of labels is still to be read, told with the first text that asks for them; labels are read once for all."""
    seen: set[Key] = set()
    tokens = []
    for task in tasks:
        new = [each for each in task.labels if each not in seen] if task.reading.windows else []
        seen.update(new)
        tokens.append(loaded.labels.unknown_tokens(new) if loaded.labels and new else 0)
    return tokens


def read_choice(options: Mapping[str, Any]) -> Choice:
    """The options of one text, which are checked before they come here."""
    return Choice(**{each.name: options[each.name] for each in fields(Choice) if each.name in options})


def entities_of(task: Task, proposals: Spans) -> tuple[Entity, ...]:
    """What of the proposals is kept, in characters."""
    choice, text, words = task.choice, task.asked.text, task.reading.words
    kept = choose(proposals, flat=choice.flat_ner, multi_label=choice.multi_label)
    starts, ends = words[kept.firsts, 0].tolist(), words[kept.lasts, 1].tolist()
    labels = [task.asked.labels[label] for label in kept.labels]
    found = [
        Entity(text[start:end], label, score, start, end)
        for start, end, label, score in zip(starts, ends, labels, kept.scores.tolist(), strict=True)
    ]
    return tuple(merged(found, text) if choice.merge_adjacent_entities else found)


def merged(entities: Sequence[Entity], text: str) -> Iterator[Entity]:
    """Neighbours with one label, at most one character apart, as one with the first one's score, as NuNER Zero asks."""
    current: Entity | None = None
    for entity in entities:
        if current and entity.label == current.label and entity.start - current.end in {0, 1}:
            current = replace(current, text=text[current.start : entity.end], end=entity.end)
            continue
        if current:
            yield current
        current = entity
    if current:
        yield current
