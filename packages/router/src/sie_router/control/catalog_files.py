"""Reads the model catalogue from two folders of YAML files."""

from pathlib import Path

from sie_protocol.catalog import BundleConfig, Catalog, ModelConfig, build_catalog, decode_bundle, decode_model


def read_catalog(models_dir: Path, bundles_dir: Path) -> Catalog:
    """Read every `*.yaml` of both folders.

    Raises:
        ValueError: a folder is missing, or a file is wrong; the message names it.
    """
    return build_catalog(
        [_model(path) for path in _files(models_dir)],
        [_bundle(path) for path in _files(bundles_dir)],
    )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is no folder; expected one with YAML files of the model catalogue")
    return sorted(folder.glob("*.yaml"))


def _model(path: Path) -> ModelConfig:
    try:
        return decode_model(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _bundle(path: Path) -> BundleConfig:
    try:
        return decode_bundle(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
