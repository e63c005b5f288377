"""One vector per text: from every architecture of `shared.architectures`.

Options: `pooling`, `normalize`, `end_token`.
"""

import threading
from collections.abc import Sequence

import torch

from sie_server.adapters.base import Capabilities, Input, LoadError, ModelSpec, Outputs, Prepared, single_texts
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.layout import Layout, read_layout
from sie_server.adapters.shared.pooling import pool, unit
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision, use_threads
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass


class DenseAdapter:
    """An encoder with pooling; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: tuple[TextTokenizer, Encoder, Layout] | None = None
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
        architecture = read_architecture(read_json(folder / "config.json"))
        expected = self._spec.dims.get("dense")
        if expected != architecture.width:
            message = f"the weights give vectors of {architecture.width} components, the catalogue says {expected}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        layout = read_layout(folder, self._spec.options)
        wanted = self._spec.max_sequence_length or layout.max_length or architecture.positions
        length = min(wanted, architecture.positions)
        tokenizer = TextTokenizer(folder, length, lower_case=layout.lower_case, end_token=layout.end_token)
        try:
            encoder = architecture.build(
                read_tensors(folder, allow_pickle=self._spec.source.allow_pickle),
                device,
                precision(self._spec.precision, device),
            )
        except torch.OutOfMemoryError as error:
            raise LoadError(ErrorClass.OOM, f"the model does not fit into the memory of {device}") from error
        self._pads = device != "cpu"
        self._loaded = tokenizer, encoder, layout

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids, cut at the model's length."""
        tokenizer, _, _ = self._ready()
        return tokenizer.prepare(single_texts(inputs))

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids."""
        tokenizer, _, _ = self._ready()
        return tokenizer.texts_of(tokens)

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

    def _ready(self) -> tuple[TextTokenizer, Encoder, Layout]:
        assert self._loaded is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._loaded
