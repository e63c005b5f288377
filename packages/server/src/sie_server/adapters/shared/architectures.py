"""Which encoder runs a checkpoint: chosen by the `model_type` of its `config.json`, and by nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError
from sie_server.adapters.shared import bart, bert_weights, deberta_weights, decoder, gated_bert, modernbert, mpnet
from sie_server.adapters.shared.deberta import PackedDeberta
from sie_server.adapters.shared.distilbert import as_bert
from sie_server.adapters.shared.flash_names import split
from sie_server.adapters.shared.lora import Lora, Targets
from sie_server.adapters.shared.prenorm import PackedPreNorm
from sie_server.adapters.shared.varlen import PackedBert
from sie_server.core.lifecycle import ErrorClass

Tensors = Mapping[str, torch.Tensor]
BERT_TYPES: Final = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta")
GATED_TYPES: Final = gated_bert.MODEL_TYPES


class Encoder(Protocol):
    """Token ids in, hidden states out. `encode` may run in several threads at once."""

    @property
    def targets(self) -> Targets | None:
        """What LoRAs may change; None: it is not run with any."""

    def encode(
        self,
        sequences: Sequence[Array],
        *,
        first_only: bool = False,
        types: Sequence[Array] | None = None,
        key_lengths: list[int] | None = None,
        loras: Sequence[Lora | None] | None = None,
    ) -> tuple[torch.Tensor, list[int]]:
        """Hidden states of the last block for int64 token id arrays.

        Without `types`, which only encoders with token types take, every token is of type 0; with `key_lengths` tokens
        look at so many of their sequence only. `loras` are those of the sequences; None: no sequence has any.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a configuration promises: components per vector, the longest input, and the encoder for its tensors.

    `types`: how many types of token there are; None for encoders that know of none. `relative`: longer inputs can be
    computed, though the model was not trained on them.
    """

    width: int
    positions: int
    build: Callable[[Tensors, str, torch.dtype], Encoder]
    types: int | None = None
    relative: bool = False

    def length(self, wanted: int | None) -> int:
        """How many tokens an input may have."""
        return min(wanted or self.positions, self.positions)


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a `config.json` names.

    Raises:
        LoadError: DEPENDENCY when there is no encoder for it, UNKNOWN when its numbers are missing.
    """
    model_type = config.get("model_type")
    read = READERS.get(str(model_type))
    if read is None:
        message = f"the model has model_type {model_type!r}; this worker runs {', '.join(sorted(READERS))}"
        raise LoadError(ErrorClass.DEPENDENCY, message)
    return read(config)


def _bert(config: Mapping[str, Any]) -> Architecture:
    if gated_bert.has_alibi(config):
        return _gated_bert(config)
    own, _ = as_bert(config, {})
    shape = bert_weights.read_shape(own, BERT_TYPES)

    def named(tensors: Tensors) -> Tensors:
        is_mpnet = config["model_type"] == "mpnet"
        return as_bert(config, mpnet.as_bert(tensors, shape.width) if is_mpnet else split(tensors))[1]

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        return _packed_bert(shape, named, tensors, device, dtype)

    types = int(config.get("type_vocab_size", 2)) if config["model_type"] == "bert" else None
    return Architecture(shape.width, shape.positions, build, types)


def _gated_bert(config: Mapping[str, Any]) -> Architecture:
    shape = gated_bert.read_shape(config)

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        return _packed_bert(shape, partial(gated_bert.as_bert, config), tensors, device, dtype)

    return Architecture(shape.width, shape.positions, build, gated_bert.read_types(config))


def _packed_bert(
    shape: bert_weights.BertShape,
    named: Callable[[Tensors], Tensors],
    tensors: Tensors,
    device: str,
    dtype: torch.dtype,
) -> Encoder:
    """`named` gives a checkpoint BERT's names."""
    weights = bert_weights.read_weights(named(tensors), shape, device, dtype)

    def rename(some: Tensors) -> Tensors:
        return {bert_weights.canonical(name): tensor for name, tensor in named(some).items()}

    places, tables = bert_weights.places(shape, weights), bert_weights.tables(shape, weights)
    return PackedBert(shape, weights, device, Targets(places, rename, device, dtype, tables))


def _bart(config: Mapping[str, Any]) -> Architecture:
    shape = bart.read_shape(config)

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        return bart.PackedBart(shape, bart.read_weights(tensors, shape, device, dtype), device)

    return Architecture(shape.width, shape.positions, build)


def _deberta(config: Mapping[str, Any]) -> Architecture:
    shape = deberta_weights.read_shape(config)

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        return PackedDeberta(shape, deberta_weights.read_weights(tensors, shape, device, dtype), device)

    return Architecture(shape.width, shape.positions, build, relative=True)


def _modernbert(config: Mapping[str, Any]) -> Architecture:
    shape = modernbert.read_shape(config)

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        weights = modernbert.read_weights(tensors, config, shape, device, dtype)
        targets = Targets(modernbert.places(shape), modernbert.split, device, dtype)
        return PackedPreNorm(shape, weights, device, targets)

    return Architecture(shape.width, shape.positions, build)


def _decoder(config: Mapping[str, Any]) -> Architecture:
    shape = decoder.read_shape(config)

    def build(tensors: Tensors, device: str, dtype: torch.dtype) -> Encoder:
        weights = decoder.read_weights(tensors, config, shape, device, dtype)
        targets = Targets(decoder.places(config, shape), _without_model, device, dtype)
        return PackedPreNorm(shape, weights, device, targets)

    return Architecture(shape.width, shape.positions, build)


def _without_model(tensors: Tensors) -> Tensors:
    return {decoder.canonical(name): tensor for name, tensor in tensors.items()}


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Architecture]]] = MappingProxyType(
    {
        **dict.fromkeys(BERT_TYPES, _bert),
        "bart": _bart,
        "deberta-v2": _deberta,
        **dict.fromkeys(GATED_TYPES, _gated_bert),
        "modernbert": _modernbert,
        **dict.fromkeys(decoder.TRAITS, _decoder),
    }
)
