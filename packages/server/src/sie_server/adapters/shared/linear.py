"""Small dense layers behind an encoder, and what checkpoints call their activations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import torch
from torch.nn import functional

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

Activation = Callable[[torch.Tensor], torch.Tensor]
InPlace = Callable[[torch.Tensor], torch.Tensor]  # changes what it is given, and returns it

# Activations in place have no public names.
gelu_: Final[InPlace] = torch.ops.aten.gelu_.default
relu_: Final[InPlace] = torch.ops.aten.relu_.default
silu_: Final[InPlace] = torch.ops.aten.silu_.default
gelu_tanh_: Final[InPlace] = partial(torch.ops.aten.gelu_.default, approximate="tanh")


def identity(states: torch.Tensor) -> torch.Tensor:
    """What goes in."""
    return states


@dataclass(frozen=True, slots=True)
class Dense:
    """`activation(states @ weight.T + bias)`; `weight` is [out, in], as checkpoints have it."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    activation: Activation = identity

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return self.activation(functional.linear(states, self.weight, self.bias))


# By the last part of a torch class, or the name in a configuration of transformers; both in lower case.
ACTIVATIONS: Final[Mapping[str, Activation]] = MappingProxyType(
    {
        "identity": identity,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }
)


def activation_named(name: str) -> Activation:
    """The activation behind a name of transformers (`gelu`) or of torch (`torch.nn.modules.activation.GELU`).

    Raises:
        LoadError: DEPENDENCY when it is another one.
    """
    package, _, last = name.rpartition(".")
    found = ACTIVATIONS.get(last.lower())
    if found is None or (package and not package.startswith("torch.nn")):
        known = ", ".join(ACTIVATIONS)
        raise LoadError(ErrorClass.DEPENDENCY, f"the model's activation {name!r} is not supported; supported: {known}")
    return found
