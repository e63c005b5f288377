"""What adapters have in common: a model that they are told of, and its parts between load and unload."""

from typing import Generic, Protocol, TypeVar

from sie_server.adapters.base import ModelSpec
from sie_server.adapters.shared.architectures import Encoder
from sie_server.adapters.shared.loading import LoadedParts
from sie_server.adapters.shared.lora import Lora, read_lora


class HasEncoder(Protocol):
    """The parts of a model, an encoder among them."""

    @property
    def encoder(self) -> Encoder:
        """The encoder."""


T = TypeVar("T")
E = TypeVar("E", bound=HasEncoder)


class ModelAdapter(Generic[T]):
    """The beginning and the end of an adapter: `load` fills `_loaded` with the parts of its model."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: LoadedParts[T] = LoadedParts()

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._loaded.drop()


class LoraAdapter(ModelAdapter[E]):
    """The same for a model whose encoder may run with LoRAs: `run` gives it what `loras_of` says."""

    def read_lora(self, folder: str) -> Lora:
        """A LoRA for the encoder."""
        return read_lora(folder, self._loaded.parts().encoder.targets)
