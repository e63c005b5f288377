"""The linear map from a late-interaction model's hidden states to its token vectors, in either published layout."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.weights import read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass

NATIVE = "linear.weight"
IDENTITY = "torch.nn.modules.linear.Identity"


def read_projection(
    folder: Path, tensors: Mapping[str, torch.Tensor], width: int, device: str, dtype: torch.dtype
) -> torch.Tensor:
    """One [width, token dims] matrix: the checkpoint's `linear.weight`, or the product of the folder's Dense modules.

    Raises:
        LoadError: there is none, it does not fit the encoder, or a module does more than multiply.
    """
    if NATIVE in tensors:
        steps = [tensors[NATIVE].float()]
    else:
        steps = [_dense(folder / path) for path in _dense_folders(folder)]
    if not steps:
        raise LoadError(ErrorClass.UNKNOWN, f"the model has neither '{NATIVE}' nor Dense modules, so no token vectors")
    whole = torch.eye(width)
    for step in steps:
        if step.ndim != 2 or step.shape[1] != whole.shape[1]:  # noqa: PLR2004 - a matrix
            message = f"the projection has shape {tuple(step.shape)}, but reads {whole.shape[1]} components"
            raise LoadError(ErrorClass.UNKNOWN, message)
        whole = whole @ step.t()
    return whole.contiguous().to(device, dtype)


def _dense_folders(folder: Path) -> list[str]:
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = [(str(each["type"]).rsplit(".", 1)[-1], str(each["path"])) for each in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"modules.json is not a list of modules: {error}") from error
    unknown = [kind for kind, _ in modules if kind not in {"Transformer", "Dense", "Normalize"}]
    if unknown:
        raise LoadError(ErrorClass.DEPENDENCY, f"modules {', '.join(unknown)} of the model are not supported")
    return [path for kind, path in modules if kind == "Dense"]


def _dense(folder: Path) -> torch.Tensor:
    config, tensors = read_json(folder / "config.json"), read_tensors(folder)
    activation = config.get("activation_function", IDENTITY)
    if activation != IDENTITY or set(tensors) != {NATIVE}:
        message = (
            f"module '{folder.name}' has {', '.join(sorted(tensors))} and {activation}; only '{NATIVE}' is supported"
        )
        raise LoadError(ErrorClass.DEPENDENCY, message)
    return tensors[NATIVE].float()
