"""The dense layers between an encoder and its vectors, as sentence-transformers and PyLate lay them out in folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.linear import Dense, activation_named, identity
from sie_server.adapters.shared.sentence_transformers_files import read_modules
from sie_server.adapters.shared.weights import read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

NATIVE: Final = "linear.weight"
KNOWN: Final = frozenset({NATIVE, "linear.bias", "residual.weight"})
Chain = tuple[Dense, ...]


def read_projection(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    width: int,
    device: str,
    dtype: torch.dtype,
    *,
    allow_pickle: bool,
) -> Chain:
    """What makes token vectors of hidden states: the checkpoint's `linear.weight`, or the folder's Dense modules.

    Raises:
        LoadError: there is none, it does not fit the encoder, or it is something else than dense layers.
    """
    if NATIVE in tensors:
        return linked([Dense(tensors[NATIVE].float())], width, device, dtype)
    modules = read_modules(folder, {"Transformer", "Dense", "Normalize"})
    layers = [read_dense(folder / path, allow_pickle=allow_pickle) for kind, path in modules if kind == "Dense"]
    if not layers:
        raise LoadError(ErrorClass.UNKNOWN, f"the model has neither '{NATIVE}' nor Dense modules, so no token vectors")
    return linked(layers, width, device, dtype)


def read_dense(folder: Path, *, allow_pickle: bool) -> Dense:
    """One Dense module, in float32. With a residual, what goes in is added to what comes out (PyLate).

    Raises:
        LoadError: a tensor is missing or unknown, or there is a residual around an activation.
    """
    config, tensors = read_json(folder / "config.json"), read_tensors(folder, allow_pickle=allow_pickle)
    unknown = sorted(set(tensors) - KNOWN)
    if unknown or NATIVE not in tensors:
        message = f"module '{folder.name}' has {', '.join(sorted(tensors))}; known: {', '.join(sorted(KNOWN))}"
        raise LoadError(ErrorClass.DEPENDENCY, message)
    weight, bias = tensors[NATIVE].float(), tensors.get("linear.bias")
    activation = activation_named(str(config.get("activation_function", "identity")))
    if config.get("use_residual", False):
        if activation is not identity:
            message = f"module '{folder.name}' has a residual around an activation, which is not supported"
            raise LoadError(ErrorClass.DEPENDENCY, message)
        around = tensors.get("residual.weight")
        weight = weight + (torch.eye(*weight.shape) if around is None else around.float())
    return Dense(weight, None if bias is None else bias.float(), activation)


def linked(layers: Sequence[Dense], width: int, device: str, dtype: torch.dtype) -> Chain:
    """Layers that follow each other; those with nothing but a product between them become one.

    Raises:
        LoadError: UNKNOWN when one does not read what the one before gives; the first reads `width` components.
    """
    chain: list[Dense] = []
    for layer in layers:
        if layer.weight.ndim != 2 or layer.weight.shape[1] != width:  # noqa: PLR2004 - a matrix
            message = f"the projection has shape {tuple(layer.weight.shape)}, but reads {width} components"
            raise LoadError(ErrorClass.UNKNOWN, message)
        width = len(layer.weight)
        chain = (
            [*chain[:-1], _merged(chain[-1], layer)] if chain and chain[-1].activation is identity else [*chain, layer]
        )
    return tuple(
        Dense(
            each.weight.contiguous().to(device, dtype),
            None if each.bias is None else each.bias.to(device, dtype),
            each.activation,
        )
        for each in chain
    )


def _merged(first: Dense, then: Dense) -> Dense:
    bias = then.bias if first.bias is None else Dense(then.weight, then.bias)(first.bias)
    return Dense(then.weight @ first.weight, bias, then.activation)
