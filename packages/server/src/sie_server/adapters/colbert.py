"""One vector for each token (ColBERT and its kin), to be compared token by token.

A marker behind the first token says whether a text is a query or a document. Queries may be expanded: filled up with
[MASK], which no token looks at unless the model was trained so (`expansion_seen`), but whose vectors count. Documents
lose the vectors of their punctuation.
Options: `query_marker`, `doc_marker`, `query_length`, `query_expansion`, `expansion_seen`, `skip_punctuation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sie_server.adapters.base import Capabilities, Input, Outputs, Prepared, single_texts
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import BERT_TYPES, Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.late_interaction import Side, read_documents, read_queries
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.pooling import normalized
from sie_server.adapters.shared.projection import Chain, read_projection
from sie_server.adapters.shared.torch_use import precision, to_device

QUERY_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    query: Side
    document: Side
    encoder: Encoder
    projection: Chain


class ColbertAdapter(LoraAdapter[Loaded]):
    """A BERT or ModernBERT whose every token becomes a unit vector; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Multivectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"multivector"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        options = self._spec.options
        expect(config, "model_type", *BERT_TYPES, "modernbert")
        architecture, dtype = read_architecture(config), precision(self._spec.precision, device)
        with loading_onto(device):
            encoder = architecture.build(tensors, device, dtype)
            projection = read_projection(
                folder, tensors, architecture.width, device, dtype, allow_pickle=self._spec.source.allow_pickle
            )
        check_dims(self._spec, "multivector", len(projection[-1].weight))
        queries = read_queries(folder, options, architecture.length(options.get("query_length", QUERY_TOKENS)))
        documents = read_documents(folder, options, architecture.length(self._spec.max_sequence_length))
        self._loaded.fill(Loaded(queries, documents, encoder, projection), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        """Token ids with marker and filling, cut at the length of a query or a document."""
        return self._side(is_query=is_query).prepare(single_texts(inputs))

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:
        """How many tokens a text has before it is cut, its marker included."""
        return self._side(is_query=is_query).tokenizer.count(given) + 1

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """One float32 array of unit vectors [tokens, dims] for each input."""
        loaded, inputs = self._loaded.with_threads(threads), [each.payload for each in batch]
        ids, key_lengths = [each.ids for each in inputs], [each.key_length for each in inputs]
        hidden, _ = loaded.encoder.encode(ids, key_lengths=key_lengths, loras=loras_of(batch))
        kept = np.concatenate([each.kept for each in inputs])
        if not kept.all():
            hidden = hidden[to_device(kept, hidden.device)]
        for layer in loaded.projection:
            hidden = layer(hidden)
        vectors = normalized(hidden.float()).cpu().numpy()
        ends = np.cumsum([np.count_nonzero(each.kept) for each in inputs])[:-1]
        return {"multivector": np.split(vectors, ends)}

    def _side(self, *, is_query: bool) -> Side:
        loaded = self._loaded.parts()
        return loaded.query if is_query else loaded.document
