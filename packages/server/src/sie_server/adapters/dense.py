"""One vector per text from the BERT family: MiniLM, E5, BGE, GTE and their kin. Options: `pooling`, `normalize`."""

import threading
from collections.abc import Sequence

import torch

from sie_server.adapters.base import Capabilities, LoadError, ModelSpec, Outputs, Prepared
from sie_server.adapters.shared.bert_weights import read_shape, read_weights
from sie_server.adapters.shared.layout import Layout, read_layout
from sie_server.adapters.shared.pooling import pool, unit
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision, use_threads
from sie_server.adapters.shared.varlen import PackedBert
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass


class DenseAdapter:
    """A BERT encoder with pooling; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: tuple[TextTokenizer, PackedBert, Layout] | None = None
        self._threads = threading.local()
        self._pads = False

    @property
    def capabilities(self) -> Capabilities:
        """Dense vectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"dense"}), pads=self._pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder = locate(self._spec.source)
        shape = read_shape(read_json(folder / "config.json"))
        expected = self._spec.dims.get("dense")
        if expected != shape.width:
            message = f"the weights give vectors of {shape.width} components, the catalogue says {expected}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        layout = read_layout(folder, self._spec.options)
        wanted = self._spec.max_sequence_length or layout.max_length or shape.positions
        tokenizer = TextTokenizer(folder, min(wanted, shape.positions), lower_case=layout.lower_case)
        try:
            weights = read_weights(read_tensors(folder), shape, device, precision(self._spec.precision, device))
        except torch.OutOfMemoryError as error:
            raise LoadError(ErrorClass.OOM, f"the model does not fit into the memory of {device}") from error
        self._pads = device != "cpu"
        self._loaded = tokenizer, PackedBert(shape, weights, device), layout

    def prepare(self, texts: Sequence[str], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - both are read alike
        """Token ids, cut at the model's length."""
        tokenizer, _, _ = self._ready()
        return tokenizer.prepare(texts)

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Dense float32 vectors of shape [batch, dims]."""
        _, encoder, layout = self._ready()
        use_threads(self._threads, threads)
        hidden, lengths = encoder.encode([each.payload for each in batch], first_only=layout.pooling == "cls")
        vectors = pool(hidden, lengths, layout.pooling).float()
        return {"dense": (unit(vectors) if layout.normalize else vectors).cpu().numpy()}

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._loaded = None

    def _ready(self) -> tuple[TextTokenizer, PackedBert, Layout]:
        assert self._loaded is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._loaded
