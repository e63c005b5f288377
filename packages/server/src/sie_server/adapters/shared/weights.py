"""Finds the folder that holds a model: a path, an installed package, or the Hugging Face hub.

Only safetensors are read. Pickled weights are not even downloaded, and no code of a model repository ever runs.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.adapters.shared.weight_files import weight_files
from sie_server.core.lifecycle import ErrorClass

if TYPE_CHECKING:
    import torch

# `*/config.json` is the configuration of a pooling module.
HUB_FILES: Final = (
    "config.json",
    "*/config.json",
    "gliner_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "idf.json",
    "preprocessor_config.json",
)
HUB_WEIGHTS: Final = ("model*.safetensors", "model.safetensors.index.json", "*_Dense/model.safetensors")


def locate(source: WeightsSource) -> Path:
    """The folder with `config.json`, `tokenizer.json` and the weights of a model.

    Raises:
        LoadError: what was looked for and what to do.
    """
    if source.path is not None:
        return _existing(Path(source.path), f"weights_path '{source.path}'")
    packaged = _in_package(source.package) if source.package else None
    if packaged is not None:
        return packaged
    if source.hf_id is not None:
        return _download(source.hf_id, source.hf_revision)
    asked = f"package '{source.package}' is not installed" if source.package else "the model names no weights"
    raise LoadError(ErrorClass.NOT_FOUND, f"{asked}; set weights_path, weights_package or hf_id in the catalogue")


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
        raise LoadError(ErrorClass.UNKNOWN, f"the weights cannot be read: {error}") from error


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


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise LoadError(ErrorClass.NOT_FOUND, f"{name} is not a folder on this worker")
    return folder


def _in_package(reference: str) -> Path | None:
    """The folder `package:folder` without importing the package; None when it is not installed."""
    package, _, folder = reference.partition(":")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return _existing(Path(found.submodule_search_locations[0], folder), f"weights_package '{reference}'")


def _download(hf_id: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415 - only loads from the hub pay for it

    pinned = f"{hf_id}@{revision}" if revision else hf_id
    try:
        return Path(snapshot_download(hf_id, revision=revision, allow_patterns=[*HUB_FILES, *HUB_WEIGHTS]))
    except errors.GatedRepoError as error:
        message = f"'{pinned}' is gated: accept its terms on the hub and give the worker HF_TOKEN"
        raise LoadError(ErrorClass.GATED, message) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        message = f"the hub has no '{pinned}', or it is private and the worker has no HF_TOKEN for it"
        raise LoadError(ErrorClass.NOT_FOUND, message) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(pinned) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the HTTP library that this version speaks
        raise _unreachable(pinned) from error


def _unreachable(pinned: str) -> LoadError:
    return LoadError(
        ErrorClass.NETWORK,
        f"'{pinned}' is not in the local cache and the hub cannot be reached; connect the worker to it, fill the cache "
        "under HF_HOME, or set weights_path in the catalogue",
    )
