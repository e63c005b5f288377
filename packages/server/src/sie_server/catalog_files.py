"""Reads the model catalogue from its files, and again when they change. What they mean: `sie_protocol.catalog`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sie_protocol.catalog import Catalog, ModelConfig, build_catalog, decode_bundle, decode_model
from sie_protocol.hashing import bundle_config_hash
from sie_protocol.names import suggestion
from sie_server.adapters.registry import ADAPTERS
from sie_server.core.load_options import check_options

T = TypeVar("T")
SOME = 3  # models that a refusal names where no name is alike
Stamp = list[tuple[str, int, int, int]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogFiles:
    """Where a worker's models are written, and which of them it serves: those of a bundle, or only the wanted ones."""

    models_dir: Path
    bundles_dir: Path
    bundle: str
    wanted: tuple[str, ...] = ()

    def read(self) -> "Served":
        """The models, and the hash by which routers know whether they read the same.

        Raises:
            ValueError: a file is wrong, or the bundle or a wanted model is missing; the message names it.
        """
        stamp = self._stamp()
        catalog = read_catalog(self.models_dir, self.bundles_dir)
        models = select(catalog, self.bundle, self.wanted)
        return Served(models, bundle_config_hash(catalog.models_of(self.bundle)), stamp)

    async def follow(self, known: "Served", publish: Callable[["Served"], None], every_s: float) -> None:
        """Publish what the files say whenever that is something else; until cancelled. `every_s` 0: never.

        What cannot be used is logged, once for each state of the files, and changes nothing. The files are asked, not
        watched: a ConfigMap changes by swapping a symbolic link above them.
        """
        seen = known.stamp
        while every_s:
            await asyncio.sleep(every_s)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == seen:
                continue
            seen = stamp
            try:
                found = await asyncio.to_thread(self.read)
            except (ValueError, OSError) as error:
                log.warning("the changed catalogue cannot be used, the worker keeps the one it has: %s", error)
                continue
            if found != known:
                log.info("read the changed catalogue: %d models", len(found.models))
                known = found
                publish(found)

    def _stamp(self) -> Stamp:
        """What changes with any file; of links, it is the file behind them that counts."""
        found: Stamp = []
        for path in (*self.models_dir.glob("*.yaml"), *self.bundles_dir.glob("*.yaml")):
            with contextlib.suppress(OSError):  # it was removed just now
                facts = path.stat()
                found.append((str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size))
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker serves: models by their ids in lower case, and the hash of its bundle's whole catalogue."""

    models: dict[str, ModelConfig]
    config_hash: str
    stamp: Stamp = field(default_factory=list, compare=False)


def read_catalog(models_dir: Path, bundles_dir: Path) -> Catalog:
    """Every model and bundle of two folders.

    Raises:
        ValueError: a folder is missing or empty, or a file is wrong; the message names it.
    """
    catalog = build_catalog(_read(models_dir, decode_model), _read(bundles_dir, decode_bundle))
    known = {*ADAPTERS, *(adapter for bundle in catalog.bundles for adapter in bundle.adapters)}
    for model in catalog.models.values():
        if not known & model.adapters:
            adapter = min(model.adapters)
            log.warning(
                "model '%s' is served by nobody: there is no adapter '%s'%s",
                model.sie_id,
                adapter,
                suggestion(adapter, known),
            )
    return catalog


def select(catalog: Catalog, bundle: str, wanted: tuple[str, ...]) -> dict[str, ModelConfig]:
    """The models a worker of this bundle serves, by lower-cased id; only the wanted ones if there are any.

    Raises:
        ValueError: the bundle, or a wanted model in it, does not exist; a profile declares what cannot be.
    """
    if bundle not in {each.name for each in catalog.bundles}:
        raise ValueError(f"there is no bundle '{bundle}'; there are: {', '.join(b.name for b in catalog.bundles)}")
    models = {model.sie_id.lower(): model for model in catalog.models_of(bundle)}
    missing = [name for name in wanted if name.lower() not in models]
    if missing:
        meant = suggestion(missing[0], (each.sie_id for each in models.values()))
        some = ", ".join(each.sie_id for each in list(models.values())[:SOME])
        meant = meant or f"; it has {len(models)}, for example {some}"
        raise ValueError(f"bundle '{bundle}' has no model {', '.join(missing)}{meant}")
    for model in models.values():
        for profile in model.profiles:
            check_options(model, profile)
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
