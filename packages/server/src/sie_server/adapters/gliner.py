"""Entities of any kind, named by the caller: GLiNER (arXiv:2311.08526) and NuNER Zero (arXiv:2402.15343).

Some find relations between these entities as well, and in the same pass.

Labels and text are read together by an encoder of `shared.architectures`, or in bi-encoders each by one of its own
(`shared.gliner_labels`); `shared.gliner_heads` says what is an entity.
Options, of the model and of a request: `threshold`, `flat_ner`, `multi_label`, `merge_adjacent_entities`; of models
with relations `relation_labels` (none) and `relation_threshold` (`threshold`).
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
    Relation,
    UnsupportedInputError,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.entity_pairs import PairHead, of_window, read_pair_head, within
from sie_server.adapters.shared.gliner_config import read_gliner_config
from sie_server.adapters.shared.gliner_heads import Head, WordLayers, read_head, read_word_layers
from sie_server.adapters.shared.gliner_labels import LabelVectors, read_label_vectors
from sie_server.adapters.shared.gliner_reader import Bounds, GlinerReader, Reading, Window, layout_of
from sie_server.adapters.shared.loading import loading_onto
from sie_server.adapters.shared.relations import Triples, strongest
from sie_server.adapters.shared.spans import Spans, choose, join
from sie_server.adapters.shared.torch_use import precision
from sie_server.adapters.shared.vector_cache import Key
from sie_server.adapters.shared.weights import locate, read_json, read_tensors

# Relative positions have no end, but attention costs the square: enough for a window of words that are long ones.
WINDOW_TOKENS: Final = 4096
# Tokens of one text over all its windows, where the catalogue does not say.
TEXT_TOKENS: Final = 16384
MAX_RELATIONS: Final = 100_000  # of one text, where a threshold near 0 lets nearly everything pass
NO_SPANS: Final = Spans(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
_ENCODER: Final = "token_rep_layer.bert_layer.model."


@dataclass(frozen=True, slots=True)
class Choice:
    """Which proposals become entities, and which relations are looked for between them."""

    threshold: float = 0.5
    flat_ner: bool = True
    multi_label: bool = False
    merge_adjacent_entities: bool = False
    relation_labels: tuple[str, ...] = ()
    relation_threshold: float = 0.5


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
    pairs: PairHead | None


@dataclass(frozen=True, slots=True)
class Look:
    """A window on its way: the proposals, and the vectors of its words and of relations, each [number, width]."""

    window: Window
    spans: Spans
    words: torch.Tensor
    relations: torch.Tensor


class GlinerAdapter(ModelAdapter[Loaded]):
    """An encoder that reads labels and text together, and a head that compares them; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Entities, and relations where the model finds them; accelerators pad inside attention."""
        relates = self._loaded.parts().pairs is not None
        outputs = {"entities", "relations"} if relates else {"entities"}
        return Capabilities(outputs=frozenset(outputs), pads=self._loaded.pads)

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
        with loading_onto(device):
            encoder = architecture.build(of_encoder, device, dtype)
            layers = read_word_layers(
                tensors, architecture.width, config.width, device, has_lstm=config.labels_encoder is None
            )
            head = read_head(tensors, config, device)
            labels = read_label_vectors(folder, tensors, config, device, dtype)
            relates = config.relation_token is not None
            pairs = read_pair_head(tensors, config.width, config.max_width, device) if relates else None
        self._loaded.fill(Loaded(reader, encoder, layers, head, labels, pairs), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Labels and words as token ids, a long text in several windows.

        Raises:
            UnsupportedInputError: no labels, too many for the model, relations for a model that finds none, or
                something else than a text with labels.
        """
        texts, loaded = labelled_texts(inputs), self._loaded.parts()
        choices = [read_choice({**self._spec.options, **each.options}) for each in texts]
        if loaded.pairs is None and any(choice.relation_labels for choice in choices):
            raise UnsupportedInputError("the model finds no relations; leave out options.relation_labels")
        readings = loaded.reader.read(texts, [choice.relation_labels for choice in choices])
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
        """The entities of each text by first character, and its relations, the best first."""
        loaded = self._loaded.with_threads(threads)
        tasks: list[Task] = [each.payload for each in batch]
        looks = iter(_looks(loaded, tasks) if any(task.reading.windows for task in tasks) else ())
        entities, relations = [], []
        for task in tasks:
            parts = [next(looks) for _ in task.reading.windows]
            kept = _kept(task, join([(each.window.first_word, each.spans) for each in parts])) if parts else NO_SPANS
            entities.append(entities_of(task, kept))
            wants = loaded.pairs is not None and bool(task.choice.relation_labels)
            relations.append(relations_of(loaded.pairs, task, kept, parts) if wants and loaded.pairs else None)
        return {"entities": entities} if loaded.pairs is None else {"entities": entities, "relations": relations}


@torch.inference_mode()
def _looks(loaded: Loaded, tasks: Sequence[Task]) -> list[Look]:
    """At each window of each task."""
    windows = [(task, window) for task in tasks for window in task.reading.windows]
    hidden, lengths = loaded.encoder.encode([window.ids for _, window in windows], first_only=False)
    starts = np.cumsum([0, *lengths[:-1]])
    placed = list(zip(starts, windows, strict=True))
    words = [start + window.words for start, (_, window) in placed]
    of_words = loaded.layers.in_order(loaded.layers.at(hidden, words), [len(each) for each in words])
    of_relations: Sequence[torch.Tensor] = [of_words[:0]] * len(windows)
    if loaded.labels is None:
        markers = loaded.layers.at(hidden, [start + task.reading.labels for start, (task, _) in placed])
        of_windows = torch.split(markers, [len(task.reading.labels) for task, _ in windows])
        counts = [len(task.asked.labels) for task, _ in windows]
        of_labels = torch.cat([each[:count] for each, count in zip(of_windows, counts, strict=True)])
        of_relations = [each[count:] for each, count in zip(of_windows, counts, strict=True)]
        rows = _slices(counts)
    else:
        sets = {task.asked.labels: task.labels for task, _ in windows}
        of_labels = loaded.labels.of([each for labels in sets.values() for each in labels])
        places = dict(zip(sets, _slices([len(labels) for labels in sets]), strict=True))
        rows = [places[task.asked.labels] for task, _ in windows]
    logits = loaded.head.logits(of_words, of_labels, list(zip(map(len, words), rows, strict=True)))
    parts = zip(windows, logits, torch.split(of_words, [*map(len, words)]), of_relations, strict=True)
    return [
        Look(window, loaded.head.spans(each, task.choice.threshold), own, relations)
        for (task, window), each, own, relations in parts
    ]


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
    known = {each.name: options[each.name] for each in fields(Choice) if each.name in options}
    related = tuple(known.pop("relation_labels", ()))
    choice = Choice(**known)
    threshold = known.get("relation_threshold", choice.threshold)
    return replace(choice, relation_labels=related, relation_threshold=threshold)


def _kept(task: Task, proposals: Spans) -> Spans:
    return choose(proposals, flat=task.choice.flat_ner, multi_label=task.choice.multi_label)


def entities_of(task: Task, kept: Spans) -> tuple[Entity, ...]:
    """What is kept, in characters."""
    choice, text, words = task.choice, task.asked.text, task.reading.words
    starts, ends = words[kept.firsts, 0].tolist(), words[kept.lasts, 1].tolist()
    labels = [task.asked.labels[label] for label in kept.labels]
    found = [
        Entity(text[start:end], label, score, start, end)
        for start, end, label, score in zip(starts, ends, labels, kept.scores.tolist(), strict=True)
    ]
    return tuple(merged(found, text) if choice.merge_adjacent_entities else found)


@torch.inference_mode()
def relations_of(pairs: PairHead, task: Task, kept: Spans, looks: Sequence[Look]) -> tuple[Relation, ...]:
    """What two of the entities that are kept have to do with each other, where one window holds both."""
    found: list[Triples] = []
    for look in looks:
        first = look.window.first_word
        places = within(kept, first, len(look.window.words))
        own = of_window(kept, places, first)
        found += pairs.triples(look.words, own, places, look.relations, task.choice.relation_threshold)
    if not found:
        return ()
    labels, text, words = task.choice.relation_labels, task.asked.text, task.reading.words
    best = strongest(found, len(labels), MAX_RELATIONS)
    starts, ends = words[kept.firsts, 0].tolist(), words[kept.lasts, 1].tolist()
    told = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    rows = zip(*(each.tolist() for each in (best.heads, best.tails, best.relations, best.scores)), strict=True)
    return tuple(Relation(told[head], told[tail], labels[relation], score) for head, tail, relation, score in rows)


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
