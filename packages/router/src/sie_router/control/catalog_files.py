"""Reads the model catalogue from two folders of YAML files, and reads it again when they change."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from sie_protocol.catalog import Catalog, build_catalog, decode_bundle, decode_model

EVERY_S: Final = 2.0  # Kubernetes itself takes about a minute to bring a changed ConfigMap to its pods

logger = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[tuple[str, int, int, int], ...]


class CatalogFiles:
    """Tells of the catalogue whenever its files have changed. A catalogue that is wrong is logged once and skipped.

    Asked rather than notified: a ConfigMap changes by swapping a symbolic link above the files, which watches of the
    files do not see.
    """

    def __init__(self, models_dir: Path, bundles_dir: Path, publish: Callable[[Catalog], None]) -> None:
        self._models_dir = models_dir
        self._bundles_dir = bundles_dir
        self._publish = publish
        self._seen: Stamp | None = None
        self._last: Catalog | None = None

    def look(self) -> None:
        """Read the files if they are not as last time. Takes milliseconds for hundreds of models."""
        catalog = self._read()
        if catalog is not None:
            self._publish(catalog)

    async def follow(self, every_s: float = EVERY_S) -> None:
        """Look again and again; never returns, cancel it."""
        while True:
            catalog = await asyncio.to_thread(self._read)
            if catalog is not None:
                self._publish(catalog)
            await asyncio.sleep(every_s)

    def _read(self) -> Catalog | None:
        """The catalogue, if it is another one than last time and not wrong."""
        stamp = _stamp(self._models_dir) + _stamp(self._bundles_dir)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            catalog = read_catalog(self._models_dir, self._bundles_dir)
        except (ValueError, OSError) as error:
            kept = "it has none yet" if self._last is None else "it keeps the one it has"
            logger.warning("the router cannot use this catalogue, %s: %s", kept, error)
            return None
        if catalog == self._last:
            return None
        logger.info("read the catalogue: %d models, %d bundles", len(catalog.models), len(catalog.bundles))
        self._last = catalog
        return catalog


def read_catalog(models_dir: Path, bundles_dir: Path) -> Catalog:
    """Read every `*.yaml` of both folders.

    Raises:
        ValueError: a folder is missing or holds nothing, or a file is wrong; the message names it.
    """
    return build_catalog(_read(models_dir, decode_model), _read(bundles_dir, decode_bundle))


def _stamp(folder: Path) -> Stamp:
    """What changes with any file of a folder; of links, it is the file behind them that counts."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            facts = path.stat()
        except OSError:
            continue  # it was removed just now
        found.append((str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def _read(folder: Path, decode: Callable[[bytes], T]) -> Iterator[T]:
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is no folder; expected one with YAML files of the model catalogue")
    files = sorted(folder.glob("*.yaml"))
    if not files:
        # Without one no model could be served, and clients would hear 404, which they take for good.
        raise ValueError(f"'{folder}' holds no *.yaml; expected the files of the model catalogue, at least one")
    for file in files:
        try:
            yield decode(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
