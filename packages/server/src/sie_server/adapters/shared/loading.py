"""What adapters share of loading: a place for the parts of a loaded model, and the refusals that all of them give."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.shared.accelerator import is_out_of_memory
from sie_server.adapters.shared.flash_names import with_model_type
from sie_server.adapters.shared.torch_use import use_threads
from sie_server.adapters.shared.weights import locate, read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

T = TypeVar("T")


class LoadedParts(Generic[T]):
    """The parts of a model between load and unload; `load` writes them, any thread may read them."""

    def __init__(self) -> None:
        self._parts: T | None = None
        self._threads = threading.local()
        self.device = "cpu"

    @property
    def pads(self) -> bool:
        """Accelerators pad inside attention."""
        return self.device != "cpu"

    def fill(self, parts: T, device: str) -> None:
        """Keep the parts of a model that is on this device."""
        self._parts = parts
        self.device = device

    def parts(self) -> T:
        """The parts."""
        assert self._parts is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._parts

    def with_threads(self, threads: int) -> T:
        """The parts, for a calling thread that computes with so many threads from now on."""
        use_threads(self._threads, threads)
        return self.parts()

    def drop(self) -> None:
        """Let the parts go."""
        self._parts = None


class StoredModel(NamedTuple):
    """A model on disk: its folder, its config.json and its tensors by name."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def read_model(source: WeightsSource) -> StoredModel:
    """Find a model and map its tensors.

    Raises:
        LoadError: what was looked for and what to do.
    """
    folder = locate(source)
    config = read_json(folder / "config.json")
    return StoredModel(folder, with_model_type(config), read_tensors(folder, allow_pickle=source.allow_pickle))


@contextmanager
def loading_onto(device: str) -> Iterator[None]:
    """Around everything that puts weights on a device.

    Raises:
        LoadError: OOM when they do not fit.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise LoadError(ErrorClass.OOM, f"the model does not fit into the memory of {device}") from error


def check_dims(spec: ModelSpec, output: str, found: int) -> None:
    """Refuse weights whose vectors have another number of components than the catalogue says.

    Raises:
        LoadError: UNKNOWN.
    """
    expected = spec.dims.get(output)
    if expected != found:
        message = f"the weights give {output} vectors of {found} components, the catalogue says {expected}"
        raise LoadError(ErrorClass.UNKNOWN, message)
