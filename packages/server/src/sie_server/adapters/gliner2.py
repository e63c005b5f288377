"""Entities, classes or data of a text, of any kind, named by the caller: GLiNER2 (arXiv:2507.18546), those with spans.

Labels and text are read together by an encoder of `shared.architectures`; `shared.gliner2_head` says what is an entity.
Each label is judged by itself: entities of one label share no words, those of different labels may. Data in the form of
a schema are made by `shared.gliner2_data`.

Options, of the model and of a request: `findings` (entities or classifications), `threshold` (0 of classifications,
else 0.5), and for classifications `multi_label` (false) and `task` ("classification"), what the labels are of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Classification,
    Data,
    Entity,
    Input,
    Labelled,
    Output,
    Outputs,
    Prepared,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliner2_config import read_gliner2_config
from sie_server.adapters.shared.gliner2_data import Place, data_of, pieces_of, seen, sheet_of
from sie_server.adapters.shared.gliner2_head import Gliner2Head, read_gliner2_head
from sie_server.adapters.shared.gliner2_reader import CLASS, ENTITY, Form, Gliner2Reader, Sheet
from sie_server.adapters.shared.gliner_reader import CONTEXT_WORDS, Bounds, Layout, Reading
from sie_server.adapters.shared.loading import loading_onto
from sie_server.adapters.shared.ranking import ranked
from sie_server.adapters.shared.spans import Spans, join
from sie_server.adapters.shared.torch_use import precision, to_device
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.schema import NOTHING, Schema

# As for GLiNER: tokens of one window, and of all windows of a text where the catalogue does not say.
WINDOW_TOKENS: Final = 4096
TEXT_TOKENS: Final = 16384
ENTITIES, CLASSIFICATIONS, DATA = "entities", "classifications", "data"
_ENCODER: Final = "encoder."


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of one text: entities, classifications or data."""

    wants: str
    sheet: Sheet
    threshold: float
    multi_label: bool
    schema: Schema = NOTHING

    @property
    def is_whole(self) -> bool:
        """Whether all that is wanted is said by the beginning of the text: what the whole of it is."""
        return all(form.marker == CLASS for form in self.sheet.forms)


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
        """Entities, classifications and data; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({ENTITIES, CLASSIFICATIONS, DATA}), pads=self._loaded.pads)

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
        with loading_onto(device):
            encoder = architecture.build(of_encoder, device, precision(self._spec.precision, device))
            head = read_gliner2_head(tensors, config, architecture.width, device)
        self._loaded.fill(Loaded(reader, encoder, head), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Labels and words as token ids; entities of a long text in several windows, classes in the first alone.

        Raises:
            UnsupportedInputError: no labels, too many for the model, one that its forms are made of, or something else
                than a text with labels.
        """
        texts = labelled_texts(inputs)
        choices = [read_choice(each, {**self._spec.options, **each.options}) for each in texts]
        readings = self._loaded.parts().reader.read(
            [(text.text, choice.sheet) for text, choice in zip(texts, choices, strict=True)],
            whole=[choice.is_whole for choice in choices],
        )
        return [
            Prepared(sum(len(window.ids) for window in reading.windows), reading.truncated, Task(text, choice, reading))
            for text, choice, reading in zip(texts, choices, readings, strict=True)
        ]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The entities of each text by first character, or its classes, the best first, or its data."""
        loaded = self._loaded.with_threads(threads)
        tasks: list[Task] = [each.payload for each in batch]
        states = iter(_states(loaded, tasks))
        parts = [[next(states) for _ in task.reading.windows] for task in tasks]
        return {
            wants: [
                find(loaded.head, task, part) if task.choice.wants == wants else None
                for task, part in zip(tasks, parts, strict=True)
            ]
            for wants, find in FIND.items()
        }


def read_choice(asked: Labelled, options: Mapping[str, Any]) -> Choice:
    """What is wanted of one text; the options are checked before they come here."""
    multi_label = bool(options.get("multi_label", False))
    if asked.schema is not None:
        return Choice(DATA, sheet_of(asked.schema), float(options.get("threshold", 0.5)), multi_label, asked.schema)
    if options.get("findings", ENTITIES) == ENTITIES:
        form = Form(ENTITIES, ENTITY, asked.labels)
        return Choice(ENTITIES, Sheet((form,)), float(options.get("threshold", 0.5)), multi_label)
    form = Form(str(options.get("task", "classification")), CLASS, asked.labels)
    return Choice(CLASSIFICATIONS, Sheet((form,)), float(options.get("threshold", 0.0)), multi_label)


def _states(loaded: Loaded, tasks: Sequence[Task]) -> list[torch.Tensor]:
    """Float32 states [tokens, width] of each window of each task."""
    windows = [window for task in tasks for window in task.reading.windows]
    hidden, lengths = loaded.encoder.encode([window.ids for window in windows], first_only=False)
    return [each.float() for each in torch.split_with_sizes(hidden, lengths)]


def _at(states: torch.Tensor, places: Array) -> torch.Tensor:
    return states[to_device(places, states.device)]


def _classes(head: Gliner2Head, task: Task, parts: Sequence[torch.Tensor]) -> tuple[Classification, ...]:
    logits = head.classes(_at(parts[0], task.reading.labels[1:]))[:, 0]
    scores = (logits.sigmoid() if task.choice.multi_label else logits.softmax(0)).tolist()
    return ranked(task.asked.labels, scores, task.choice.threshold)


def _entities(head: Gliner2Head, task: Task, parts: Sequence[torch.Tensor]) -> tuple[Entity, ...]:
    proposals: list[tuple[int, Spans]] = []
    for window, states in zip(task.reading.windows, parts, strict=True):
        markers = _at(states, task.reading.labels)
        if not head.count(markers[0]):
            continue
        words, (queries,) = _at(states, window.words), head.queries(markers[1:], 1)
        (logits,) = head.spans.logits(words, queries, [(len(words), slice(0, len(queries)))])
        proposals.append((window.first_word, head.spans.spans(logits, task.choice.threshold)))
    return entities_of(task, join(proposals)) if proposals else ()


def entities_of(task: Task, proposals: Spans) -> tuple[Entity, ...]:
    """What of the proposals is kept, label by label, in characters."""
    found = [
        Entity(text, label, score, start, end)
        for number, label in enumerate(task.asked.labels)
        for text, score, start, end in pieces_of(
            task.asked.text, task.reading.words, proposals.at(np.flatnonzero(proposals.labels == number))
        )
    ]
    return tuple(sorted(found, key=lambda each: each.start))


def _data(head: Gliner2Head, task: Task, parts: Sequence[torch.Tensor]) -> Data:
    text, choice, reading = task.asked.text, task.choice, task.reading
    windows = [
        seen(head, choice.schema, choice.sheet, Place(text, reading, window, states), choice.threshold)
        for window, states in zip(reading.windows, parts, strict=True)
    ]
    return data_of(choice.schema, windows, choice.threshold)


FIND: Final[Mapping[str, Callable[[Gliner2Head, Task, Sequence[torch.Tensor]], Output]]] = {
    ENTITIES: _entities,
    CLASSIFICATIONS: _classes,
    DATA: _data,
}
