"""Deterministic vectors from a hash of the text: for tests, local clusters and simulations. Needs no torch.

Gives whatever outputs the catalogue says the model has. Options: `load_s` and `batch_s` make loading and each batch
take that long, to stand in for a slower model.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

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

DEFAULT_MAX_WORDS = 512


class HashAdapter:
    """An output depends on nothing but the text as it is cut to the model's length in words."""

    def __init__(self, spec: ModelSpec) -> None:
        self._dims = spec.dims
        self._max_words = spec.max_sequence_length or DEFAULT_MAX_WORDS
        self._load_s = float(spec.options.get("load_s", 0.0))
        self._batch_s = float(spec.options.get("batch_s", 0.0))

    @property
    def capabilities(self) -> Capabilities:
        """The outputs of the catalogue."""
        return Capabilities(outputs=frozenset(self._dims))

    def load(self, device: str) -> None:  # noqa: ARG002 - a hash is computed where it is
        """Wait `load_s`; there is nothing to read."""
        time.sleep(self._load_s)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - one hash
        """A token is a word."""
        return [self._prepare(text) for text in single_texts(inputs)]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - one hash
        """How many words a text has."""
        return max(1, len(single_texts([given])[0].split()))

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - hashing is serial
        """`dense`: a unit vector of the text. `sparse`: how often a word is there. `multivector`: one for each word."""
        if self._batch_s:
            time.sleep(self._batch_s)
        return {kind: [_output(kind, each.payload, dims) for each in batch] for kind, dims in self._dims.items()}

    def unload(self) -> None:
        """Nothing is held."""

    def _prepare(self, text: str) -> Prepared:
        words = text.split()
        cut = words[: self._max_words]
        return Prepared(max(1, len(cut)), len(words) > len(cut), " ".join(cut) if len(words) > len(cut) else text)


def _output(kind: str, text: str, dims: int) -> Output:
    match kind:
        case "sparse":
            return _counts(text, dims)
        case "multivector":
            return np.stack([_vector(word, dims) for word in text.split() or [""]])
        case _:
            return _vector(text, dims)


def _counts(text: str, dims: int) -> SparseVector:
    found = sorted(Counter(int.from_bytes(_digest(word, 8), "little") % dims for word in text.split()).items())
    indices, counts = [index for index, _ in found], [count for _, count in found]
    return SparseVector(np.array(indices, dtype=np.int32), np.array(counts, dtype=np.float32))


def _vector(text: str, dims: int) -> Array:
    centred = np.frombuffer(_digest(text, 4 * dims), "<u4").astype(np.float64) - 2.0**31
    return (centred / np.linalg.norm(centred)).astype(np.float32)


def _digest(text: str, size_bytes: int) -> bytes:
    return hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(size_bytes)
