"""One score per pair of texts from an encoder that reads both at once: rerankers.

Reads checkpoints of sequence classifiers with one label: BERT (ms-marco), RoBERTa and XLM-RoBERTa (bge-reranker),
ModernBERT and Alibaba's encoder (gte-reranker). Of a pair that is too long, the longer text is cut first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, LoadError, Prepared, text_pairs
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import BERT_TYPES, GATED_TYPES, Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.classifier_heads import Head, read_head
from sie_server.adapters.shared.linear import Activation, activation_named
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision
from sie_server.core.lifecycle import ErrorClass

PAIR_TYPES: Final = 2  # the first text and the second


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `reads_types`: each token is told which text it is of. `pooling` is cls or mean."""

    tokenizer: TextTokenizer
    encoder: Encoder
    reads_types: bool
    pooling: str
    head: Head
    activation: Activation


class CrossEncoderAdapter(LoraAdapter[Loaded]):
    """An encoder with a classifier of one label; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Scores of pairs; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"score"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", *BERT_TYPES, *GATED_TYPES, "modernbert")
        architecture, activation = read_architecture(config), read_activation(config)
        if architecture.types is not None and architecture.types < PAIR_TYPES:
            raise LoadError(ErrorClass.DEPENDENCY, "the model does not tell the two texts of a pair apart")
        length = architecture.length(self._spec.max_sequence_length)
        tokenizer = TextTokenizer(folder, length, lower_case=False, pairs=True)
        with loading_onto(device):
            head = read_head(tensors, config, architecture.width, device)
            if head.labels > 1:
                raise LoadError(ErrorClass.DEPENDENCY, f"the model has {head.labels} labels; a reranker has one score")
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
        pooling, reads_types = read_pooling(config), architecture.types is not None
        self._loaded.fill(Loaded(tokenizer, encoder, reads_types, pooling, head, activation), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - pairs have both
        """Ids and types of the tokens of each pair; of a pair that is too long, the longer text is cut first."""
        return self._loaded.parts().tokenizer.prepare_pairs(text_pairs(inputs))

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - pairs have both
        """How many tokens a pair has before it is cut."""
        return self._loaded.parts().tokenizer.count(given)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Mapping[str, Array]:
        """Float32 scores of shape [batch]."""
        loaded = self._loaded.with_threads(threads)
        ids, types = zip(*(each.payload for each in batch), strict=True)
        hidden, lengths = loaded.encoder.encode(
            ids,
            first_only=loaded.pooling == "cls",
            types=types if loaded.reads_types else None,
            loras=loras_of(batch),
        )
        logits = loaded.head.logits(pool(hidden, lengths, loaded.pooling))[:, 0]
        return {"score": loaded.activation(logits).cpu().numpy()}


def read_pooling(config: Mapping[str, Any]) -> str:
    """What the classifier reads: the first token, or with ModernBERT's `classifier_pooling` the mean of all.

    Raises:
        LoadError: DEPENDENCY for any other way.
    """
    if config["model_type"] != "modernbert":
        return "cls"
    expect(config, "classifier_pooling", "cls", "mean", default="cls")
    return str(config.get("classifier_pooling", "cls"))


def read_activation(config: Mapping[str, Any]) -> Activation:
    """What a checkpoint wants done with its one logit; a sigmoid where it says nothing.

    Raises:
        LoadError: DEPENDENCY when it wants something else than a known function of torch.
    """
    section = config.get("sentence_transformers")
    own = section.get("activation_fn") if isinstance(section, Mapping) else None
    path = own or config.get("sbert_ce_default_activation_function")
    return torch.sigmoid if path is None else activation_named(str(path))
