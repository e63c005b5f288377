"""Where a model's folder is on this machine: at a path, or inside an installed package. Fetches nothing."""

import importlib.util
from pathlib import Path

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.core.lifecycle import ErrorClass


def locate(source: WeightsSource) -> Path:
    """The folder on this machine with `config.json`, `tokenizer.json` and the weights of a model.

    Raises:
        LoadError: what was looked for and what to do.
    """
    folder = find_local(source)
    if folder is not None:
        return folder
    asked = f"package '{source.package}' is not installed" if source.package else "the model names no weights"
    if source.hf_id is not None:
        asked = f"'{source.hf_id}' was not fetched"
    raise LoadError(ErrorClass.NOT_FOUND, f"{asked}; set weights_path, weights_package or hf_id in the catalogue")


def find_local(source: WeightsSource) -> Path | None:
    """The folder that a source names itself, by path or package; None when it does not, or the package is missing.

    Raises:
        LoadError: NOT_FOUND when it names a folder that is not there.
    """
    if source.path is not None:
        return _existing(Path(source.path), f"weights_path '{source.path}'")
    return _in_package(source.package) if source.package else None


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
