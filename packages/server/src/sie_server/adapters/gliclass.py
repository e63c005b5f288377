"""Labels for a text that no model was trained for, all of them in one pass: GLiClass.

The encoder reads the labels together with the text (Stepanov et al. 2025, arXiv:2508.07662), so the cost hardly grows
with their number. By default a text has one label, and scores are the softmax over the labels; with `multi_label` each
label has a sigmoid of its own. Of a text that is too long the end is cut, never a label.

Options of a request: `multi_label` (false), `threshold` (0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    Labelled,
    Outputs,
    Prepared,
    UnsupportedInputError,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliclass_config import GliclassConfig, read_gliclass_config
from sie_server.adapters.shared.gliclass_head import GliclassHead, read_gliclass_head
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.ranking import ranked
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.adapters.shared.torch_use import precision, to_device

LABEL: Final = "<<LABEL>>"
END: Final = "<<SEP>>"
LONGEST: Final = 1024  # of a text with its labels, where the catalogue says nothing, as the package has it
_ENCODER: Final = "model.encoder_model."


@dataclass(frozen=True, slots=True)
class Question:
    """One prepared text with its labels: token ids, and the places of the tokens that labels stand behind."""

    asked: Labelled
    ids: Array
    places: Array


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    tokenizer: Tokenizer
    config: GliclassConfig
    encoder: Encoder
    head: GliclassHead
    room: int


class GliclassAdapter(ModelAdapter[Loaded]):
    """An encoder that reads labels and text together, and a head that compares them; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Classifications of texts; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"classifications"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, own, tensors = read_model(self._spec.source)
        config = read_gliclass_config(own)
        architecture = read_architecture(config.encoder)
        wanted = self._spec.max_sequence_length or LONGEST
        room = wanted if architecture.relative else architecture.length(wanted)
        of_encoder = {name.removeprefix(_ENCODER): each for name, each in tensors.items() if name.startswith(_ENCODER)}
        with loading_onto(device):
            encoder = architecture.build(of_encoder, device, precision(self._spec.precision, device))
            head = read_gliclass_head(tensors, config, device)
        self._loaded.fill(Loaded(open_tokenizer(folder), config, encoder, head, room), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Question.

        Raises:
            UnsupportedInputError: no labels, too many for the model, or something else than a text with labels.
        """
        loaded, texts = self._loaded.parts(), labelled_texts(inputs)
        encodings = loaded.tokenizer.encode_batch_fast([_written(each, loaded.config) for each in texts])
        return [
            _prepared(each, np.asarray(encoding.ids, np.int64), loaded)
            for each, encoding in zip(texts, encodings, strict=True)
        ]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The labels of each text whose score reaches its threshold, the best first."""
        loaded = self._loaded.with_threads(threads)
        questions: list[Question] = [each.payload for each in batch]
        hidden, lengths = loaded.encoder.encode([each.ids for each in questions])
        found = []
        for question, states in zip(questions, torch.split_with_sizes(hidden, lengths), strict=True):
            options, labels = question.asked.options, question.asked.labels
            logits = loaded.head.logits(*_vectors(question, states, loaded.config))
            scores = (logits.sigmoid() if options.get("multi_label", False) else logits.softmax(0)).tolist()
            found.append(ranked(labels, scores, float(options.get("threshold", 0.0))))
        return {"classifications": found}


def _written(text: Labelled, config: GliclassConfig) -> str:
    if not text.labels:
        raise UnsupportedInputError("it needs labels to choose from")
    marked = next((each for each in text.labels if LABEL in each or END in each), None)
    if marked is not None:
        raise UnsupportedInputError(f"the label '{marked[:100]}' holds {LABEL} or {END}, which separate labels")
    labels = "".join(f"{LABEL}{label}" for label in text.labels) + END
    return f"{labels}{text.text}" if config.labels_first else f"{text.text}{labels}"


def _prepared(text: Labelled, ids: Array, loaded: Loaded) -> Prepared:
    """Cut the text's end, wherever it is, so that labels and the token that ends the sequence stay."""
    config, over = loaded.config, len(ids) - loaded.room
    # A text may hold the marker, too: labels are the first ones, or the last.
    places = np.flatnonzero(ids == config.label_id)
    places = places[: len(text.labels)] if config.labels_first else places[-len(text.labels) :]
    if over > 0:
        ends = np.flatnonzero(ids == config.text_id)
        before = ends[ends > places[-1]][0] + 1 if config.labels_first else 1
        last = len(ids) - 1 if config.labels_first else places[0]
        if last - before < over:
            raise UnsupportedInputError(f"{len(text.labels)} labels leave no room for a text in {loaded.room} tokens")
        ids = np.delete(ids, np.arange(last - over, last))
        places = places if config.labels_first else places - over
    return Prepared(len(ids), over > 0, Question(text, ids, places))


def _vectors(question: Question, states: torch.Tensor, config: GliclassConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """The text's [width] and the labels' [labels, width]."""
    ends = np.flatnonzero(question.ids == config.text_id)
    start = int(ends[0]) if config.reads_text_only and len(ends) else 0
    # The published mean divides by the tokens of the whole sequence, even if it adds up those of the text only.
    text = states[start:].sum(0) / len(states) if config.text_mean else states[start]
    first = question.places + (0 if config.reads_label_token else 1)
    if not config.averages:
        return text, states[to_device(first, states.device)]
    behind = [*question.places[1:], start if config.reads_text_only else len(states)]
    spans = [states[low:high] for low, high in zip(first, behind, strict=True)]
    return text, torch.stack([each.mean(0) if len(each) else each.new_zeros(each.shape[1]) for each in spans])
