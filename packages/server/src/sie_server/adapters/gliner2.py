"""Entities, or classes of a text, of any kind, named by the caller: GLiNER2 (arXiv:2507.18546), the models with spans.

Labels and text are read together by an encoder of `shared.architectures`; `shared.gliner2_head` says what is an entity.
Each label is judged by itself: entities of one label share no words, those of different labels may.

Options, of the model and of a request: `findings` (entities or classifications), `threshold` (0.5 of entities, 0 of
classifications), and for classifications `multi_label` (false) and `task` ("classification"), what the labels are of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Classification,
    Entity,
    Input,
    Labelled,
    Outputs,
    Prepared,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliner2_config import read_gliner2_config
from sie_server.adapters.shared.gliner2_head import Gliner2Head, read_gliner2_head
from sie_server.adapters.shared.gliner2_reader import CLASS, ENTITY, Form, Gliner2Reader
from sie_server.adapters.shared.gliner_reader import CONTEXT_WORDS, Bounds, Layout, Reading
from sie_server.adapters.shared.held import fitting
from sie_server.adapters.shared.ranking import ranked
from sie_server.adapters.shared.spans import Spans, choose, join
from sie_server.adapters.shared.torch_use import precision, sent
from sie_server.adapters.shared.weights import locate, read_json, read_tensors

# As for GLiNER: tokens of one window, and of all windows of a text where the catalogue does not say.
WINDOW_TOKENS: Final = 4096
TEXT_TOKENS: Final = 16384
ENTITIES, CLASSIFICATIONS = "entities", "classifications"
_ENCODER: Final = "encoder."


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of one text."""

    form: Form
    threshold: float
    multi_label: bool

    @property
    def classifies(self) -> bool:
        """Whether classes of the whole text are wanted, not entities."""
        return self.form.marker == CLASS


@dataclass(frozen=True, slots=True)
class Task:
    """One text on its way through the model."""

    asked: Labelled
    choice: Choice
    reading: Reading


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    reader: Gliner2Reader
    encoder: Encoder
    head: Gliner2Head


class Gliner2Adapter(ModelAdapter[Loaded]):
    """An encoder that reads labels and text together, and heads for entities and classes; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Entities and classifications; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({ENTITIES, CLASSIFICATIONS}), pads=self._held.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        source = self._spec.source
        folder = locate(source)
        config = read_gliner2_config(read_json(folder / "config.json"))
        architecture = read_architecture(read_json(folder / "encoder_config" / "config.json"))
        window = WINDOW_TOKENS if architecture.relative else architecture.positions
        layout = Layout(config.max_words, max(config.max_width - 1, CONTEXT_WORDS))
        reader = Gliner2Reader(folder, layout, Bounds(window, self._spec.max_sequence_length or TEXT_TOKENS))
        tensors = read_tensors(folder, allow_pickle=source.allow_pickle)
        of_encoder = {name.removeprefix(_ENCODER): each for name, each in tensors.items() if name.startswith(_ENCODER)}
        with fitting(device):
            encoder = architecture.build(of_encoder, device, precision(self._spec.precision, device))
            head = read_gliner2_head(tensors, config, architecture.width, device)
        self._held.fill(Loaded(reader, encoder, head), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Labels and words as token ids; entities of a long text in several windows, classes in the first alone.

        Raises:
            UnsupportedInputError: no labels, too many for the model, one that its forms are made of, or something else
                than a text with labels.
        """
        texts = labelled_texts(inputs)
        choices = [read_choice(each.labels, {**self._spec.options, **each.options}) for each in texts]
        readings = self._held.parts().reader.read(
            [(text.text, choice.form) for text, choice in zip(texts, choices, strict=True)],
            whole=[choice.classifies for choice in choices],
        )
        return [
            Prepared(sum(len(window.ids) for window in reading.windows), reading.truncated, Task(text, choice, reading))
            for text, choice, reading in zip(texts, choices, readings, strict=True)
        ]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The entities of each text by first character, or its classes, the best first."""
        loaded = self._held.with_threads(threads)
        tasks: list[Task] = [each.payload for each in batch]
        states = iter(_states(loaded, tasks))
        entities: list[tuple[Entity, ...] | None] = []
        classes: list[tuple[Classification, ...] | None] = []
        for task in tasks:
            parts = [next(states) for _ in task.reading.windows]
            wants_classes = task.choice.classifies
            classes.append(_classes(loaded.head, task, parts[0]) if wants_classes else None)
            entities.append(None if wants_classes else _entities(loaded.head, task, parts))
        return {ENTITIES: entities, CLASSIFICATIONS: classes}


def read_choice(labels: tuple[str, ...], options: Mapping[str, Any]) -> Choice:
    """The options of one text, which are checked before they come here."""
    classifies = options.get("findings", ENTITIES) == CLASSIFICATIONS
    name = str(options.get("task", "classification")) if classifies else ENTITIES
    threshold = options.get("threshold", 0.0 if classifies else 0.5)
    form = Form(name, CLASS if classifies else ENTITY, labels)
    return Choice(form, float(threshold), bool(options.get("multi_label", False)))


def _states(loaded: Loaded, tasks: Sequence[Task]) -> list[torch.Tensor]:
    """Float32 states [tokens, width] of each window of each task."""
    windows = [window for task in tasks for window in task.reading.windows]
    hidden, lengths = loaded.encoder.encode([window.ids for window in windows], first_only=False)
    return [each.float() for each in torch.split_with_sizes(hidden, lengths)]


def _at(states: torch.Tensor, places: Array) -> torch.Tensor:
    return states[sent(places, states.device)]


def _classes(head: Gliner2Head, task: Task, states: torch.Tensor) -> tuple[Classification, ...]:
    logits = head.classes(_at(states, task.reading.labels[1:]))[:, 0]
    scores = (logits.sigmoid() if task.choice.multi_label else logits.softmax(0)).tolist()
    return ranked(task.asked.labels, scores, task.choice.threshold)


def _entities(head: Gliner2Head, task: Task, parts: Sequence[torch.Tensor]) -> tuple[Entity, ...]:
    proposals: list[tuple[int, Spans]] = []
    for window, states in zip(task.reading.windows, parts, strict=True):
        markers = _at(states, task.reading.labels)
        if not head.is_there(markers[0]):
            continue
        words, queries = _at(states, window.words), head.queries(markers[1:])
        (logits,) = head.spans.logits(words, queries, [(len(words), slice(0, len(queries)))])
        proposals.append((window.first_word, head.spans.spans(logits, task.choice.threshold)))
    return entities_of(task, join(proposals)) if proposals else ()


def entities_of(task: Task, proposals: Spans) -> tuple[Entity, ...]:
    """What of the proposals is kept, label by label, in characters; a full stop that was put behind a text is cut."""
    text, words = task.asked.text, task.reading.words
    found = []
    for number, label in enumerate(task.asked.labels):
        own = proposals.at(np.flatnonzero(proposals.labels == number))
        kept = choose(own, flat=True, multi_label=False)
        starts = words[kept.firsts, 0].tolist()
        ends = np.minimum(words[kept.lasts, 1], len(text)).tolist()
        found += [
            Entity(text[start:end], label, score, start, end)
            for start, end, score in zip(starts, ends, kept.scores.tolist(), strict=True)
            if start < end
        ]
    return tuple(sorted(found, key=lambda each: each.start))
