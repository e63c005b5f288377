"""One score per pair of texts from a BERT that reads both at once: the ms-marco rerankers and their kin.

Reads a checkpoint of a sequence classifier with one label: tanh pooler on the first token, then a linear layer.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, LoadError, ModelSpec, Prepared, text_pairs
from sie_server.adapters.shared.bert_weights import read_shape, read_weights
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision, use_threads
from sie_server.adapters.shared.varlen import PackedBert
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

ACTIVATIONS: Final = {"Identity": torch.nn.Identity, "Sigmoid": torch.nn.Sigmoid, "Tanh": torch.nn.Tanh}
PAIR_TYPES: Final = 2  # the first text and the second


@dataclass(frozen=True, slots=True)
class Head:
    """From the first token's hidden state to one score, in float32. Weights are [out, in]."""

    pooler: torch.Tensor
    pooler_bias: torch.Tensor
    classifier: torch.Tensor
    classifier_bias: torch.Tensor
    activation: torch.nn.Module

    def scores(self, firsts: torch.Tensor) -> torch.Tensor:
        """[pairs, width] to [pairs]."""
        pooled = torch.tanh(torch.nn.functional.linear(firsts.float(), self.pooler, self.pooler_bias))
        logits = torch.nn.functional.linear(pooled, self.classifier, self.classifier_bias)
        scores: torch.Tensor = self.activation(logits.squeeze(1))
        return scores


class CrossEncoderAdapter:
    """A BERT encoder with a classifier of one label; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: tuple[TextTokenizer, PackedBert, Head] | None = None
        self._threads = threading.local()
        self._pads = False

    @property
    def capabilities(self) -> Capabilities:
        """Scores of pairs; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"score"}), pads=self._pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder = locate(self._spec.source)
        config = read_json(folder / "config.json")
        shape = read_shape(config)
        tokenizer = TextTokenizer(
            folder, min(self._spec.max_sequence_length or shape.positions, shape.positions), lower_case=False
        )
        tensors = read_tensors(folder, allow_pickle=self._spec.source.allow_pickle)
        try:
            weights = read_weights(tensors, shape, device, precision(self._spec.precision, device))
            head = read_head(tensors, shape.width, read_activation(config), device)
        except torch.OutOfMemoryError as error:
            raise LoadError(ErrorClass.OOM, f"the model does not fit into the memory of {device}") from error
        if len(weights.types) < PAIR_TYPES:
            raise LoadError(ErrorClass.DEPENDENCY, "the model does not tell the two texts of a pair apart")
        self._pads = device != "cpu"
        self._loaded = tokenizer, PackedBert(shape, weights, device), head

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - pairs have both
        """Ids and types of the tokens of each pair; of a pair that is too long, the longer text is cut first."""
        tokenizer, _, _ = self._ready()
        return tokenizer.prepare_pairs(text_pairs(inputs))

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Mapping[str, Array]:
        """Float32 scores of shape [batch]."""
        _, encoder, head = self._ready()
        use_threads(self._threads, threads)
        ids, types = zip(*(each.payload for each in batch), strict=True)
        firsts, _ = encoder.encode(ids, first_only=True, types=types)
        return {"score": head.scores(firsts).cpu().numpy()}

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._loaded = None

    def _ready(self) -> tuple[TextTokenizer, PackedBert, Head]:
        assert self._loaded is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._loaded


def read_activation(config: Mapping[str, Any]) -> torch.nn.Module:
    """What a checkpoint wants done with its one logit; a sigmoid where it says nothing.

    Raises:
        LoadError: DEPENDENCY when it wants something else than torch's Identity, Sigmoid or Tanh.
    """
    section = config.get("sentence_transformers")
    own = section.get("activation_fn") if isinstance(section, Mapping) else None
    path = own or config.get("sbert_ce_default_activation_function")
    if path is None:
        return torch.nn.Sigmoid()
    package, _, name = str(path).rpartition(".")
    if not package.startswith("torch.nn") or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise LoadError(ErrorClass.DEPENDENCY, f"the model's activation {path!r} is not supported; supported: {known}")
    return ACTIVATIONS[name]()


def read_head(tensors: Mapping[str, torch.Tensor], width: int, activation: torch.nn.Module, device: str) -> Head:
    """The classifier of a checkpoint.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing, DEPENDENCY when there is more than one label.
    """
    named = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    labels = len(named.get("classifier.weight", ()))
    if labels > 1:
        raise LoadError(ErrorClass.DEPENDENCY, f"the model has {labels} labels; a reranker has one score")

    def get(name: str, *wanted: int) -> torch.Tensor:
        tensor = named.get(name)
        if tensor is None or tuple(tensor.shape) != wanted:
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}, not {wanted}"
            raise LoadError(ErrorClass.UNKNOWN, f"the checkpoint's tensor '{name}' {found}")
        return tensor.to(device, torch.float32)

    return Head(
        get("pooler.dense.weight", width, width),
        get("pooler.dense.bias", width),
        get("classifier.weight", 1, width),
        get("classifier.bias", 1),
        activation,
    )
