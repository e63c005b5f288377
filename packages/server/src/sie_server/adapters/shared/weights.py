"""Reads a model's folder: its JSON files, and its tensors from safetensors.

No code of a model repository ever runs. Folders of models from elsewhere are fetched by whoever loads an adapter.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.location import locate
from sie_server.adapters.shared.weight_files import weight_files
from sie_server.core.lifecycle import ErrorClass

if TYPE_CHECKING:
    import torch

__all__ = ["locate", "read_json", "read_pickle", "read_tensors"]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        LoadError: NOT_FOUND when there is no such file, UNKNOWN when it is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise LoadError(ErrorClass.NOT_FOUND, f"the model folder has no {path.name}") from error
    except ValueError as error:
        raise LoadError(ErrorClass.UNKNOWN, f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise LoadError(ErrorClass.UNKNOWN, f"{path.name} is not a JSON object")
    return value


def read_tensors(folder: Path, *, allow_pickle: bool = False) -> "dict[str, torch.Tensor]":
    """Every tensor of a model folder, mapped from the files rather than read.

    Raises:
        LoadError: as `weight_files`, and UNKNOWN when the files cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, allow_pickle=allow_pickle):
        read = file.suffix == ".safetensors"
        tensors.update(read_safetensors(file) if read else read_pickle(file, allow_pickle=allow_pickle))
    return tensors


def read_safetensors(file: Path) -> "dict[str, torch.Tensor]":
    """The tensors of one file.

    Raises:
        LoadError: UNKNOWN when they cannot be read.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - needs torch, which only loads pay for
    from safetensors.torch import load_file  # noqa: PLC0415 - the same

    try:
        return load_file(file)
    except SafetensorError as error:
        raise LoadError(ErrorClass.UNKNOWN, f"'{file}' cannot be read: {error}") from error


def read_pickle(file: Path, *, allow_pickle: bool) -> "dict[str, torch.Tensor]":
    """The tensors of one `.bin` or `.pt` file, by torch's reader that builds tensors only and calls nothing.

    Even so it is a parser of untrusted programs, so the catalogue must allow it for each model by itself.

    Raises:
        LoadError: DEPENDENCY when it is not allowed, NOT_FOUND when there is no file, UNKNOWN when it holds more than
            tensors or cannot be read.
    """
    from pickle import UnpicklingError  # noqa: PLC0415, TID251 - the name of torch's refusal, nothing is unpickled

    import torch  # noqa: PLC0415 - only loads pay for it

    if not allow_pickle:
        message = f"{file.name} is a pickle; if you trust who published it, set allow_pickle: true in the catalogue"
        raise LoadError(ErrorClass.DEPENDENCY, message)
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise LoadError(ErrorClass.NOT_FOUND, f"the model folder has no {file.name}") from error
    except (UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"{file.name} is not a file of tensors alone: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(each, torch.Tensor) for each in tensors.values()):
        raise LoadError(ErrorClass.UNKNOWN, f"{file.name} holds other things than named tensors")
    return tensors
