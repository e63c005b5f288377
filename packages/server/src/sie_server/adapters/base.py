"""What the engine asks of a model family, and nothing more.

An adapter knows its weights, its tokenizer and its arithmetic. It knows nothing of HTTP, queues, metrics or requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sie_protocol.arrays import Array
from sie_server.core.lifecycle import ErrorClass


class LoadError(Exception):
    """A model could not be loaded; the class decides when another attempt makes sense."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class UnsupportedInputError(Exception):
    """One input that this model cannot read; the message is meant for the caller."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Where weights may be found; the first that is set and present wins. See `shared.weights.locate`."""

    path: str | None = None
    package: str | None = None
    hf_id: str | None = None
    hf_revision: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All an adapter is told about its model.

    `dims` maps an output to its number of components. `options` are those of the family (`pooling`, ...).
    `precision` is the dtype wanted on an accelerator; on a CPU everything is float32.
    """

    name: str
    source: WeightsSource
    dims: Mapping[str, int]
    options: Mapping[str, Any]
    max_sequence_length: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a family's batches look like. `pads`: batches of similar length are cheaper."""

    outputs: frozenset[str]
    pads: bool = False


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The components that are not zero: int32 indices, ascending, and float32 weights, both of shape [non-zeros]."""

    indices: Array
    values: Array


Output = Array | SparseVector  # of one input
Outputs = Mapping[str, Array | Sequence[Output]]  # of a batch: by name, one entry for each input


@dataclass(frozen=True, slots=True)
class Prepared:
    """One input, ready for the device. `tokens` is what the model will read, special tokens included."""

    tokens: int
    truncated: bool
    payload: Any


class Adapter(Protocol):
    """One model. `load` comes first and alone; `prepare` and `run` may be called from several threads at once."""

    @property
    def capabilities(self) -> Capabilities:
        """Known after `load`."""

    def load(self, device: str) -> None:
        """Read weights and tokenizer and put them on `device` (`cpu`, `cuda`, `mps`).

        Raises:
            LoadError: what is missing or wrong.
        """

    def prepare(self, texts: Sequence[str], *, is_query: bool = False) -> list[Prepared]:
        """Tokenise on the CPU. `is_query`: for models that read queries differently; templates are applied before."""

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Compute one batch with at most this many CPU threads.

        Returns each output on the CPU, one entry for each input in order: `dense` is a float32 array of shape
        [batch, dims], `sparse` a list of SparseVector, `multivector` a list of float32 arrays of shape [tokens, dims].
        """

    def unload(self) -> None:
        """Drop weights and buffers."""
