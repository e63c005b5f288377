"""Labels for a text that no model was trained for: one that is entailed by the text, as "This text is about X.", fits.

The way of Yin et al., arXiv:1909.00161: a classifier of natural language inference reads a pair of texts a label.
By default a text has one label, and scores are the softmax of entailment over the labels. With `multi_label` each label
has the softmax of entailment against contradiction, as has a label that stands alone.

Options of a request: `multi_label` (false), `hypothesis_template` ("This text is about {}."), `threshold` (0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Classification,
    Input,
    Labelled,
    LoadError,
    Outputs,
    Prepared,
    UnsupportedInputError,
    labelled_texts,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.chunks import chunk_tokens, chunks
from sie_server.adapters.shared.classifier_heads import Head, read_head
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.pairs import PairTokenizer
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.ranking import ranked
from sie_server.adapters.shared.torch_use import precision
from sie_server.core.lifecycle import ErrorClass

DEFAULT_TEMPLATE: Final = "This text is about {}."
PAIR_TYPES: Final = 2  # the text and the hypothesis


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """What is asked of every text of a request: a label each, and the token ids of its sentence."""

    labels: tuple[str, ...]
    ids: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One prepared text. Its pairs are put together when they are computed: there may be a thousand."""

    premise: Array
    hypotheses: Hypotheses
    multi_label: bool
    threshold: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready; one call computes at most `limit` tokens. `verdicts`: entailment and contradiction."""

    tokenizer: PairTokenizer
    encoder: Encoder
    head: Head
    pooling: str
    has_types: bool
    verdicts: tuple[int, int]
    limit: int

    @torch.inference_mode()
    def logits(self, pairs: Sequence[tuple[Array, Array]]) -> torch.Tensor:
        """Logits [pairs, 2] of entailment and contradiction, for a text and a hypothesis each."""
        ids, types = zip(*(self.tokenizer.pair(*each) for each in pairs), strict=True)
        hidden, lengths = self.encoder.encode(
            ids, first_only=self.pooling == "cls", types=types if self.has_types else None
        )
        return self.head.logits(pool(hidden, lengths, self.pooling))[:, self.verdicts].cpu()


class NliAdapter(ModelAdapter[Loaded]):
    """An encoder with a classifier of pairs, two of whose labels are entailment and contradiction."""

    @property
    def capabilities(self) -> Capabilities:
        """Classifications of texts; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"classifications"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        verdicts = read_verdicts(config)
        architecture = read_architecture(config)
        if architecture.types is not None and architecture.types < PAIR_TYPES:
            raise LoadError(ErrorClass.DEPENDENCY, "the model does not tell the two texts of a pair apart")
        tokenizer = PairTokenizer(folder, architecture.length(self._spec.max_sequence_length))
        with loading_onto(device):
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
            head = read_head(tensors, config, architecture.width, device)
        if max(verdicts) >= head.labels:
            message = f"the weights have {head.labels} labels, too few for those that config.json names"
            raise LoadError(ErrorClass.UNKNOWN, message)
        # A decoder has read the whole text at its end only.
        pooling = "last" if config["model_type"] == "bart" else str(config.get("classifier_pooling", "cls"))
        has_types = architecture.types is not None
        loaded = Loaded(tokenizer, encoder, head, pooling, has_types, verdicts, chunk_tokens(device))
        self._loaded.fill(loaded, device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Question; its tokens are those of all pairs. Every text and hypothesis is tokenised once."""
        tokenizer = self._loaded.parts().tokenizer
        texts = labelled_texts(inputs)
        asked = {(each.labels, _template(each)) for each in texts}
        hypotheses = {key: _hypotheses(tokenizer, *key) for key in asked}
        premises = tokenizer.read([each.text for each in texts])
        return [
            _prepared(tokenizer, premise, hypotheses[text.labels, _template(text)], text.options)
            for text, premise in zip(texts, premises, strict=True)
        ]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The labels of each text whose score reaches its threshold, the best first."""
        loaded = self._loaded.with_threads(threads)
        questions: list[Question] = [each.payload for each in batch]
        pairs = [(each.premise, hypothesis) for each in questions for hypothesis in each.hypotheses.ids]
        logits = torch.empty(len(pairs), len(loaded.verdicts))
        for places in chunks([loaded.tokenizer.length(*pair) for pair in pairs], loaded.limit):
            logits[places] = loaded.logits([pairs[at] for at in places])
        parts = torch.split_with_sizes(logits, [len(each.hypotheses.labels) for each in questions])
        return {"classifications": [judge(*each) for each in zip(questions, parts, strict=True)]}


def judge(question: Question, logits: torch.Tensor) -> tuple[Classification, ...]:
    """From logits [labels, 2] of entailment and contradiction to scores; equal ones keep the caller's order."""
    labels = question.hypotheses.labels
    alone = question.multi_label or len(labels) == 1
    scores = (logits.softmax(1)[:, 0] if alone else logits[:, 0].softmax(0)).tolist()
    return ranked(labels, scores, question.threshold)


def read_verdicts(config: Mapping[str, Any]) -> tuple[int, int]:
    """Which classes mean entailment and contradiction, however they are spelled; of two classes the other one.

    Raises:
        LoadError: UNKNOWN when the configuration names no entailment, or of several others no contradiction.
    """
    named = config.get("id2label")
    try:
        names = {int(number): str(name).lower() for number, name in dict(named or {}).items()}
    except (TypeError, ValueError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"config.json has no id2label, but {named!r:.200}") from error
    entails = [number for number, name in names.items() if name.startswith("entail")]
    others = [number for number in names if number not in entails]
    contradicts = others if len(others) == 1 else [each for each in others if names[each].startswith("contra")]
    if len(entails) != 1 or len(contradicts) != 1:
        message = f"config.json names the labels {', '.join(names.values())[:200]}; expected entailment, contradiction"
        raise LoadError(ErrorClass.UNKNOWN, message)
    return entails[0], contradicts[0]


def _template(text: Labelled) -> str:
    return str(text.options.get("hypothesis_template", DEFAULT_TEMPLATE))


def _hypotheses(tokenizer: PairTokenizer, labels: tuple[str, ...], template: str) -> Hypotheses:
    if not labels:
        raise UnsupportedInputError("it needs labels to choose from")
    ids = tokenizer.read([template.replace("{}", label, 1) for label in labels])
    long = next((label for label, each in zip(labels, ids, strict=True) if len(each) >= tokenizer.room), None)
    if long is not None:
        raise UnsupportedInputError(f"the label '{long[:100]}' leaves no room for a text")
    return Hypotheses(labels, tuple(ids))


def _prepared(tokenizer: PairTokenizer, premise: Array, hypotheses: Hypotheses, options: Mapping[str, Any]) -> Prepared:
    question = Question(
        premise, hypotheses, bool(options.get("multi_label", False)), float(options.get("threshold", 0.0))
    )
    longest = max(map(len, hypotheses.ids))
    return Prepared(
        sum(tokenizer.length(premise, each) for each in hypotheses.ids),
        truncated=len(premise) + longest > tokenizer.room,
        payload=question,
    )
