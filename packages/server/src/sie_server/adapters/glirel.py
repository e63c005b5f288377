"""What entities of a text have to do with each other, in words of the caller's: GLiREL (arXiv:2501.03172).

Relations and text are read together by an encoder of `shared.architectures`; the caller says which entities there are,
and `shared.glirel_head` compares each two of them, in both directions, with each relation. Of a long text two entities
are compared where one window holds both, and windows share half of their words.

Options, of the model and of a request: `threshold` (0.5), `top_k` (10 relations of each head and tail).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    Labelled,
    LoadError,
    Outputs,
    Prepared,
    Relation,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliner_heads import WordLayers, read_word_layers
from sie_server.adapters.shared.gliner_reader import Bounds, GlinerReader, Layout, Reading, Window
from sie_server.adapters.shared.glirel_config import (
    AFTER_LABELS,
    BEFORE_LABEL,
    BOTH,
    TOKEN,
    GlirelConfig,
    read_glirel_config,
)
from sie_server.adapters.shared.glirel_head import GlirelHead, read_glirel_head
from sie_server.adapters.shared.loading import loading_onto
from sie_server.adapters.shared.relations import Triples, of_head, strongest
from sie_server.adapters.shared.torch_use import precision
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

# As for GLiNER: enough for a window of words that are long ones, and tokens of a text where the catalogue does not say.
WINDOW_TOKENS: Final = 4096
TEXT_TOKENS: Final = 16384
MAX_RELATIONS: Final = 100_000  # of one text, where a threshold near 0 lets nearly everything pass
_ENCODER: Final = "token_rep_layer.bert_layer.model."


@dataclass(frozen=True, slots=True)
class Choice:
    """Which proposals become relations."""

    threshold: float = 0.5
    top_k: int = 10


@dataclass(frozen=True, slots=True)
class Look:
    """A window with two entities or more: their numbers [entities], and first and last word of each [entities, 2]."""

    window: Window
    entities: Array
    spans: Array


@dataclass(frozen=True, slots=True)
class Task:
    """One text on its way through the model; `entities` are the texts of its entities."""

    asked: Labelled
    choice: Choice
    reading: Reading
    entities: tuple[str, ...]
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    reader: GlinerReader
    config: GlirelConfig
    encoder: Encoder
    layers: WordLayers
    head: GlirelHead


class GlirelAdapter(ModelAdapter[Loaded]):
    """An encoder that reads relations and text together, and a head that compares pairs; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Relations; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"relations"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        source = self._spec.source
        folder = locate(source)
        config = read_glirel_config(read_json(folder / "glirel_config.json"))
        missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
        if missing:
            raise LoadError(
                ErrorClass.DEPENDENCY,
                f"the model folder has no {' and no '.join(missing)} of its encoder, as the package glirel saves it: "
                "convert it once as docs/models/gliner.md says, and set weights_path in the catalogue",
            )
        architecture = read_architecture(read_json(folder / "config.json"))
        window = WINDOW_TOKENS if architecture.relative else architecture.positions
        bounds = Bounds(window, self._spec.max_sequence_length or TEXT_TOKENS)
        layout = Layout(config.max_words, config.max_words // 2, BEFORE_LABEL, AFTER_LABELS)
        reader = GlinerReader(folder, layout, bounds)
        tensors = read_tensors(folder, allow_pickle=source.allow_pickle)
        of_encoder = {name.removeprefix(_ENCODER): each for name, each in tensors.items() if name.startswith(_ENCODER)}
        with loading_onto(device):
            encoder = architecture.build(of_encoder, device, precision(self._spec.precision, device))
            layers = read_word_layers(tensors, architecture.width, config.width, device)
            head = read_glirel_head(tensors, config, device)
        self._loaded.fill(Loaded(reader, config, encoder, layers, head), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Relations and words as token ids, a long text in several windows; those without two entities are not read.

        Raises:
            UnsupportedInputError: no labels, too many for the model, or something else than a text with labels.
        """
        texts = labelled_texts(inputs)
        readings = self._loaded.parts().reader.read(texts)
        tasks = [
            _task(text, read_choice({**self._spec.options, **text.options}), reading)
            for text, reading in zip(texts, readings, strict=True)
        ]
        return [
            Prepared(sum(len(look.window.ids) for look in task.looks), task.reading.truncated, task) for task in tasks
        ]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The relations of each text, the best first."""
        loaded = self._loaded.with_threads(threads)
        tasks: list[Task] = [each.payload for each in batch]
        parts = iter(_proposals(loaded, tasks) if any(task.looks for task in tasks) else ())
        return {"relations": [relations_of(task, [next(parts) for _ in task.looks]) for task in tasks]}


def read_choice(options: Mapping[str, Any]) -> Choice:
    """The options of one text, which are checked before they come here."""
    return Choice(**{each.name: options[each.name] for each in fields(Choice) if each.name in options})


def relations_of(task: Task, parts: Sequence[Sequence[Triples]]) -> tuple[Relation, ...]:
    """What of the proposals of all windows is kept."""
    found = [each for part in parts for each in part]
    if not found:
        return ()
    kept = strongest(found, task.choice.top_k, MAX_RELATIONS)
    rows = zip(*(each.tolist() for each in (kept.heads, kept.tails, kept.relations, kept.scores)), strict=True)
    return tuple(
        Relation(task.entities[head], task.entities[tail], task.asked.labels[relation], score)
        for head, tail, relation, score in rows
    )


def _task(text: Labelled, choice: Choice, reading: Reading) -> Task:
    starts, ends = reading.words.T
    # An entity is the words that it shares characters with; of entities that are the same words the first counts.
    words: dict[tuple[int, int], str] = {}
    for start, end in text.mentions:
        first, last = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(starts, end, "left")) - 1
        if first <= last:
            words.setdefault((first, last), text.text[start:end])
    spans = np.array([*words], np.int64).reshape(-1, 2)
    looks = []
    for window in reading.windows:
        within = spans - window.first_word
        entities = np.flatnonzero((within[:, 0] >= 0) & (within[:, 1] < len(window.words)))
        if len(entities) > 1:
            looks.append(Look(window, entities, within[entities]))
    return Task(text, choice, reading, tuple(words.values()), tuple(looks))


@torch.inference_mode()
def _proposals(loaded: Loaded, tasks: Sequence[Task]) -> list[list[Triples]]:
    """Of each window of each task."""
    looks = [(task, look) for task in tasks for look in task.looks]
    hidden, lengths = loaded.encoder.encode([look.window.ids for _, look in looks], first_only=False)
    starts = np.cumsum([0, *lengths[:-1]])
    places = [start + look.window.words for start, (_, look) in zip(starts, looks, strict=True)]
    words = loaded.layers.in_order(loaded.layers.at(hidden, places), [len(each) for each in places])
    labels = [start + task.reading.labels for start, (task, _) in zip(starts, looks, strict=True)]
    parts = zip(
        looks,
        torch.split(words, [len(each) for each in places]),
        torch.split(_relations(loaded, hidden, labels), [len(each) for each in labels]),
        strict=True,
    )
    found = []
    for (task, look), of_words, of_labels in parts:
        logits = loaded.head.logits(of_words, look.spans, of_labels)
        found.append(
            [
                of_head(head, look.entities, each.sigmoid().cpu().numpy(), task.choice.threshold, task.choice.top_k)
                for head, each in zip(look.entities.tolist(), logits, strict=True)
            ]
        )
    return found


def _relations(loaded: Loaded, hidden: torch.Tensor, places: Sequence[Array]) -> torch.Tensor:
    """Vectors [relations of all windows, width], from the place of each relation's marker, behind which it stands."""
    markers = loaded.layers.at(hidden, places)
    if loaded.config.label == TOKEN:
        return markers
    words = loaded.layers.at(hidden, [each + 1 for each in places])
    return (markers + words) / 2 if loaded.config.label == BOTH else words
