"""BGE-M3 and its kin: one pass of an encoder gives a dense vector, weights of a text's words, and a vector a token.

Dense is the first token's state. The weight of a word is the largest that a linear layer gives to any of its places;
token vectors are a projection of all states but the first. Only what was asked for is computed, and texts of one batch
may ask for different things. Published as "M3-Embedding" (Chen et al. 2024, arXiv 2402.03216), and without the last
output as "mGTE" (Zhang et al. 2024, arXiv 2407.19669).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    ModelSpec,
    Output,
    Outputs,
    Prepared,
    SparseVector,
    single_texts,
)
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import GATED_TYPES, Encoder, read_architecture
from sie_server.adapters.shared.bert_weights import canonical
from sie_server.adapters.shared.checkpoint import Checkpoint, expect
from sie_server.adapters.shared.linear import Dense
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.pooling import normalized
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision
from sie_server.adapters.shared.weights import read_pickle, read_safetensors

OUTPUTS: Final = frozenset({"dense", "sparse", "multivector"})
HEADS: Final = (("sparse", "sparse_linear"), ("multivector", "colbert_linear"))
WORDLESS: Final = ("<s>", "</s>", "<pad>", "<unk>")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `wordless` are ids of tokens that stand for no word; `heads` are those of the outputs."""

    tokenizer: TextTokenizer
    encoder: Encoder
    wordless: Array
    heads: Mapping[str, Dense]


class BgeM3Adapter(LoraAdapter[Loaded]):
    """An XLM-RoBERTa with the two heads of BGE-M3, or Alibaba's encoder with a head for words; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._outputs = OUTPUTS.intersection(spec.dims)

    @property
    def capabilities(self) -> Capabilities:
        """The outputs of the catalogue; accelerators pad inside attention."""
        return Capabilities(outputs=self._outputs, pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", "xlm-roberta", *GATED_TYPES)
        architecture, dtype = read_architecture(config), precision(self._spec.precision, device)
        width = architecture.width
        tokenizer = TextTokenizer(folder, architecture.length(self._spec.max_sequence_length), lower_case=False)
        with loading_onto(device):
            encoder = architecture.build(tensors, device, dtype)
            heads = self._heads(folder, tensors, width, device)
        found = {"dense": width, "sparse": config.get("vocab_size", 0)}
        for output in self._outputs:
            check_dims(self._spec, output, found[output] if output in found else len(heads[output].weight))
        wordless = np.array([at for word in WORDLESS if (at := tokenizer.id_of(word)) is not None], np.int64)
        self._loaded.fill(Loaded(tokenizer, encoder, wordless, heads), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids, cut at the model's length."""
        return self._loaded.parts().tokenizer.prepare(single_texts(inputs))

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens a text has before it is cut."""
        return self._loaded.parts().tokenizer.count(given)

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids."""
        return self._loaded.parts().tokenizer.texts_of(tokens)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """What each text asks for: `dense`, `sparse`, `multivector`; None in the place of what it does not."""
        loaded = self._loaded.with_threads(threads)
        wanted = [self._outputs if each.wanted is None else each.wanted for each in batch]
        asked = frozenset[str]().union(*wanted)
        ids = [each.payload for each in batch]
        hidden, lengths = loaded.encoder.encode(ids, first_only=asked <= {"dense"}, loras=loras_of(batch))
        states = torch.split_with_sizes(hidden, lengths)
        found: dict[str, list[Output | None]] = {kind: [None] * len(batch) for kind in asked & self._outputs}
        for kind, rows in found.items():
            places = [at for at, each in enumerate(wanted) if kind in each]
            computed = _compute(loaded, kind, [states[at] for at in places], [ids[at] for at in places])
            for at, output in zip(places, computed, strict=True):
                rows[at] = output
        return found

    def _heads(self, folder: Path, tensors: Mapping[str, torch.Tensor], width: int, device: str) -> dict[str, Dense]:
        own, allow_pickle = Checkpoint(tensors, canonical, device), self._spec.source.allow_pickle
        return {
            output: Dense(own.get("classifier.weight", 1, width), own.get("classifier.bias", 1))
            if output == "sparse" and own.has("classifier.weight")  # as mGTE has it
            else read_linear(folder, name, width, device, allow_pickle=allow_pickle)
            for output, name in HEADS
            if output in self._outputs
        }


def read_linear(folder: Path, name: str, width: int, device: str, *, allow_pickle: bool) -> Dense:
    """A head in a file of its own, in float32: `{name}.safetensors`, or as published `{name}.pt`, which is a pickle.

    Raises:
        LoadError: the file is missing, is a pickle where none is allowed, or holds something else than a linear layer.
    """
    safe = folder / f"{name}.safetensors"
    tensors = (
        read_safetensors(safe) if safe.is_file() else read_pickle(folder / f"{name}.pt", allow_pickle=allow_pickle)
    )
    get = Checkpoint(tensors, lambda own: own, device).get
    bias = get("bias")
    return Dense(get("weight", len(bias), width), bias)


def _compute(loaded: Loaded, kind: str, states: Sequence[torch.Tensor], ids: Sequence[Array]) -> list[Output]:
    if kind == "dense":
        return list(normalized(torch.stack([each[0] for each in states]).float()).cpu().numpy())
    if kind == "sparse":
        weights = loaded.heads[kind](torch.cat(list(states)).float()).relu().squeeze(1).cpu().numpy()
        ends = np.cumsum([len(each) for each in ids])[:-1]
        return [_words(own, row, loaded.wordless) for own, row in zip(ids, np.split(weights, ends), strict=True)]
    vectors = normalized(loaded.heads[kind](torch.cat([each[1:] for each in states]).float())).cpu().numpy()
    return list(np.split(vectors, np.cumsum([len(each) - 1 for each in ids])[:-1]))


def _words(ids: Array, weights: Array, wordless: Array) -> SparseVector:
    """The largest weight of each word of a text, where it is above 0."""
    unique, places = np.unique(ids, return_inverse=True)
    largest = np.zeros(len(unique), np.float32)
    np.maximum.at(largest, places, weights)
    kept = (largest > 0) & ~np.isin(unique, wordless)
    return SparseVector(unique[kept].astype(np.int32), largest[kept])
