"""Learned sparse vectors (SPLADE and its kin): a text becomes weights of the words that it holds or suggests.

The weight of a word is log(1 + its largest logit over all tokens), where that is positive. Options: `log1p` is how
often the logarithm is taken (1 or 2), `drop_special` leaves out words like [SEP], `query_weights` names a JSON file of
the model that maps words to weights: then a query is the words it holds, with those weights, and no model runs for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    LoadError,
    Outputs,
    Prepared,
    SparseVector,
    single_texts,
)
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import BERT_TYPES, GATED_TYPES, Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.mlm_head import MlmHead, read_head
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class Recipe:
    """What becomes of the logits. `dropped` are word ids; `query_weights` is [vocabulary], or None: queries are run."""

    log1p: int
    dropped: tuple[int, ...]
    query_weights: Array | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    tokenizer: TextTokenizer
    encoder: Encoder
    head: MlmHead
    recipe: Recipe


class SparseAdapter(LoraAdapter[Loaded]):
    """A BERT of any kind with its masked-language head; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Sparse vectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"sparse"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", *BERT_TYPES, *GATED_TYPES)
        architecture, dtype = read_architecture(config), precision(self._spec.precision, device)
        tokenizer = TextTokenizer(folder, architecture.length(self._spec.max_sequence_length), lower_case=False)
        with loading_onto(device):
            encoder = architecture.build(tensors, device, dtype)
            head = read_head(tensors, config, architecture.width, device, dtype)
        check_dims(self._spec, "sparse", head.vocabulary)
        self._loaded.fill(Loaded(tokenizer, encoder, head, self._recipe(folder, tokenizer, head.vocabulary)), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        """Token ids, cut at the model's length; a query that needs no model is its answer already."""
        loaded = self._loaded.parts()
        prepared = loaded.tokenizer.prepare(single_texts(inputs))
        weights = loaded.recipe.query_weights
        if not is_query or weights is None:
            return prepared
        return [Prepared(each.tokens, each.truncated, _held(each.payload, weights)) for each in prepared]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens a text has before it is cut."""
        return self._loaded.parts().tokenizer.count(given)

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """One SparseVector for each input."""
        loaded = self._loaded.with_threads(threads)
        read = [each for each in batch if not isinstance(each.payload, SparseVector)]
        computed = iter(_compute(loaded, read) if read else ())
        return {
            "sparse": [each.payload if isinstance(each.payload, SparseVector) else next(computed) for each in batch]
        }

    def _recipe(self, folder: Path, tokenizer: TextTokenizer, vocabulary: int) -> Recipe:
        options = self._spec.options
        log1p, file = options.get("log1p", 1), options.get("query_weights")
        if log1p not in {1, 2}:
            raise LoadError(ErrorClass.UNKNOWN, f"option log1p is {log1p!r}; expected 1 or 2")
        dropped = tokenizer.special_ids if options.get("drop_special", False) else ()
        return Recipe(log1p, dropped, None if file is None else _read_weights(folder / file, tokenizer, vocabulary))


@torch.inference_mode()
def _compute(loaded: Loaded, batch: Sequence[Prepared]) -> list[SparseVector]:
    hidden, lengths = loaded.encoder.encode([each.payload for each in batch], loras=loras_of(batch))
    weights = loaded.head.peaks(hidden, lengths).relu_()
    for _ in range(loaded.recipe.log1p):
        weights.log1p_()
    weights[:, list(loaded.recipe.dropped)] = 0
    return _rows(weights)


def _held(ids: Array, weights: Array) -> SparseVector:
    unique = np.unique(ids)
    kept = unique[weights[unique] > 0]
    return SparseVector(kept.astype(np.int32), weights[kept])


def _rows(weights: torch.Tensor) -> list[SparseVector]:
    rows, words = torch.nonzero(weights, as_tuple=True)  # in order of rows, then of words
    values = weights[rows, words].cpu().numpy()
    ends = np.cumsum(torch.bincount(rows, minlength=len(weights)).cpu().numpy())[:-1]
    indices = np.split(words.to(torch.int32).cpu().numpy(), ends)
    return [SparseVector(*each) for each in zip(indices, np.split(values, ends), strict=True)]


def _read_weights(file: Path, tokenizer: TextTokenizer, vocabulary: int) -> Array:
    weights = np.zeros(vocabulary, np.float32)
    for word, weight in read_json(file).items():
        at = tokenizer.id_of(word)
        if at is None or at >= vocabulary or not isinstance(weight, (int, float)):
            message = f"{file.name} gives the word {word!r} the weight {weight!r}; expected a known word and a number"
            raise LoadError(ErrorClass.UNKNOWN, message)
        weights[at] = weight
    return weights
