"""Finds the tensors of a checkpoint under their names, and reads numbers of its configuration, with clear refusals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

T = TypeVar("T")
# How configurations call layers whose tokens see all others, and those within a window.
FULL, SLIDING = "full_attention", "sliding_attention"
Rename = Callable[[str], str]
Get = Callable[..., torch.Tensor]  # `Checkpoint.get`


class Checkpoint:
    """Tensors by the name that `rename` gives them, moved to the device as they are asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], rename: Rename, device: str) -> None:
        self._named = {rename(name): tensor for name, tensor in tensors.items()}
        self.device = device

    def has(self, name: str) -> bool:
        """True when there is such a tensor."""
        return name in self._named

    def get(self, name: str, *wanted: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """One tensor of this shape; without a shape, of any.

        Raises:
            LoadError: UNKNOWN naming a tensor that is missing or has another shape.
        """
        tensor = self._named.get(name)
        if tensor is None or (wanted and tuple(tensor.shape) != wanted):
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}, not {wanted}"
            raise LoadError(ErrorClass.UNKNOWN, f"the checkpoint's tensor '{name}' {found}")
        return tensor.to(self.device, dtype)

    def find(self, name: str, *wanted: int, dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
        """The same of a tensor that need not be there.

        Raises:
            LoadError: UNKNOWN when it has another shape.
        """
        return self.get(name, *wanted, dtype=dtype) if name in self._named else None


def expect(config: Mapping[str, Any], key: str, *allowed: object, default: object = None) -> None:
    """Refuse a configuration whose value for a key is another than what the encoder computes.

    Raises:
        LoadError: DEPENDENCY.
    """
    value = config.get(key, default)
    if value not in allowed:
        known = ", ".join(repr(each) for each in allowed)
        raise LoadError(ErrorClass.DEPENDENCY, f"the model has {key} {value!r}; this adapter runs {known} only")


def read_kinds(config: Mapping[str, Any], rhythm: Sequence[str]) -> Sequence[str]:
    """`FULL` or `SLIDING` for each layer: as the configuration lists them, or by the rhythm of older ones.

    Raises:
        LoadError: DEPENDENCY for a kind of layer that is not computed here.
        ValueError: there are more or fewer kinds than layers.
    """
    kinds = config.get("layer_types") or rhythm
    for kind in kinds:
        expect({"layer_types": kind}, "layer_types", FULL, SLIDING)
    if len(kinds) != len(rhythm):
        raise ValueError(f"layer_types has {len(kinds)} layers, num_hidden_layers is {len(rhythm)}")
    return kinds


def read_numbers(family: str, read: Callable[[], T]) -> T:
    """What `read` makes of a configuration.

    Raises:
        LoadError: UNKNOWN when a number is missing or is none.
    """
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"config.json is not that of a {family}: {error}") from error
