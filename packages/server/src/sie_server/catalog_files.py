"""Reads the model catalogue from its files. What the files mean is `sie_protocol.catalog`'s business."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sie_protocol.catalog import Catalog, ModelConfig, build_catalog, decode_bundle, decode_model

T = TypeVar("T")


def read_catalog(models_dir: Path, bundles_dir: Path) -> Catalog:
    """Every model and bundle of two folders.

    Raises:
        ValueError: a folder is missing or empty, or a file is wrong; the message names it.
    """
    return build_catalog(_read(models_dir, decode_model), _read(bundles_dir, decode_bundle))


def select(catalog: Catalog, bundle: str, wanted: tuple[str, ...]) -> dict[str, ModelConfig]:
    """The models a worker of this bundle serves, by lower-cased id; only the wanted ones if there are any.

    Raises:
        ValueError: the bundle, or a wanted model in it, does not exist.
    """
    if bundle not in {each.name for each in catalog.bundles}:
        raise ValueError(f"there is no bundle '{bundle}'; there are: {', '.join(b.name for b in catalog.bundles)}")
    models = {model.sie_id.lower(): model for model in catalog.models_of(bundle)}
    missing = [name for name in wanted if name.lower() not in models]
    if missing:
        raise ValueError(f"bundle '{bundle}' has no model {', '.join(missing)}; it has: {', '.join(models)}")
    return {name: models[name] for name in (each.lower() for each in wanted)} if wanted else models


def _read(folder: Path, decode: Callable[[bytes], T]) -> Iterator[T]:
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ValueError(f"the catalogue folder '{folder}' has no *.yaml files")
    for file in files:
        try:
            yield decode(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
