"""Deterministic unit vectors from a hash of the text: for tests, local clusters and simulations. Needs no torch.

Options: `load_s` and `batch_s` make loading and each batch take that long, to stand in for a slower model.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, ModelSpec, Prepared, single_texts

DEFAULT_MAX_WORDS = 512


class HashAdapter:
    """A vector depends on nothing but the text as it is cut to the model's length in words."""

    capabilities = Capabilities(outputs=frozenset({"dense"}))

    def __init__(self, spec: ModelSpec) -> None:
        self._dims = spec.dims["dense"]
        self._max_words = spec.max_sequence_length or DEFAULT_MAX_WORDS
        self._load_s = float(spec.options.get("load_s", 0.0))
        self._batch_s = float(spec.options.get("batch_s", 0.0))

    def load(self, device: str) -> None:  # noqa: ARG002 - a hash is computed where it is
        """Wait `load_s`; there is nothing to read."""
        time.sleep(self._load_s)

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        """A token is a word."""
        return [self._prepare(text) for text in single_texts(inputs)]

    def run(self, batch: Sequence[Prepared], threads: int) -> Mapping[str, Array]:  # noqa: ARG002 - hashing is serial
        """Unit vectors of shape [batch, dims]."""
        if self._batch_s:
            time.sleep(self._batch_s)
        return {"dense": np.stack([self._vector(item.payload) for item in batch])}

    def unload(self) -> None:
        """Nothing is held."""

    def _prepare(self, text: str) -> Prepared:
        words = text.split()
        cut = words[: self._max_words]
        return Prepared(max(1, len(cut)), len(words) > len(cut), " ".join(cut) if len(words) > len(cut) else text)

    def _vector(self, text: str) -> Array:
        digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * self._dims)
        centred = np.frombuffer(digest, "<u4").astype(np.float64) - 2.0**31
        return (centred / np.linalg.norm(centred)).astype(np.float32)
