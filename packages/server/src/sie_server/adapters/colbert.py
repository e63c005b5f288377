"""One vector for each token (ColBERT and its kin), to be compared token by token.

A marker behind the first token says whether a text is a query or a document. Queries may be expanded: filled up with
[MASK], which no token looks at, but whose vectors count. Documents lose the vectors of their punctuation.
Options: `query_marker`, `doc_marker`, `query_length`, `query_expansion`, `skip_punctuation`.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sie_server.adapters.base import Capabilities, Input, LoadError, ModelSpec, Outputs, Prepared, single_texts
from sie_server.adapters.shared.bert_weights import read_shape, read_weights
from sie_server.adapters.shared.marked import Side, read_documents, read_queries
from sie_server.adapters.shared.pooling import unit
from sie_server.adapters.shared.projection import read_projection
from sie_server.adapters.shared.torch_use import precision, use_threads
from sie_server.adapters.shared.varlen import PackedBert
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

QUERY_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `projection` is [width, token dims]."""

    query: Side
    document: Side
    encoder: PackedBert
    projection: torch.Tensor


class ColbertAdapter:
    """A BERT encoder whose every token becomes a unit vector; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: Loaded | None = None
        self._threads = threading.local()
        self._pads = False

    @property
    def capabilities(self) -> Capabilities:
        """Multivectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"multivector"}), pads=self._pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder = locate(self._spec.source)
        shape, tensors = (
            read_shape(read_json(folder / "config.json")),
            read_tensors(folder, allow_pickle=self._spec.source.allow_pickle),
        )
        dtype = precision(self._spec.precision, device)
        options = self._spec.options
        query_length = min(options.get("query_length", QUERY_TOKENS), shape.positions)
        length = min(self._spec.max_sequence_length or shape.positions, shape.positions)
        try:
            encoder = PackedBert(shape, read_weights(tensors, shape, device, dtype), device)
            projection = read_projection(folder, tensors, shape.width, device, dtype)
        except torch.OutOfMemoryError as error:
            raise LoadError(ErrorClass.OOM, f"the model does not fit into the memory of {device}") from error
        if (expected := self._spec.dims.get("multivector")) != projection.shape[1]:
            message = f"the weights give vectors of {projection.shape[1]} components, the catalogue says {expected}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        self._pads = device != "cpu"
        self._loaded = Loaded(
            read_queries(folder, options, query_length), read_documents(folder, options, length), encoder, projection
        )

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        """Token ids with marker and filling, cut at the length of a query or a document."""
        loaded = self._ready()
        return (loaded.query if is_query else loaded.document).prepare(single_texts(inputs))

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """One float32 array of unit vectors [tokens, dims] for each input."""
        use_threads(self._threads, threads)
        loaded, inputs = self._ready(), [each.payload for each in batch]
        hidden, _ = loaded.encoder.encode([each.ids for each in inputs], seen=[each.seen for each in inputs])
        kept = np.concatenate([each.kept for each in inputs])
        if not kept.all():
            hidden = hidden[torch.from_numpy(kept).to(hidden.device)]
        vectors = unit((hidden @ loaded.projection).float()).cpu().numpy()
        ends = np.cumsum([np.count_nonzero(each.kept) for each in inputs])[:-1]
        return {"multivector": np.split(vectors, ends)}

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._loaded = None

    def _ready(self) -> Loaded:
        assert self._loaded is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._loaded
