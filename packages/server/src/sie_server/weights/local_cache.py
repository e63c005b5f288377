"""The folder of complete models on this worker's disk, which several workers may share.

NAME/               a complete model: its files, its manifest, and the stamp of its last use
.partial/NAME/      one that is being fetched, or was when a worker died
.trash/             what is being deleted
.locks/NAME         shared by who reads NAME, exclusive to who fetches or deletes it
"""

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sie_server.core.disk import Cached
from sie_server.weights.locks import EntryLock
from sie_server.weights.snapshot import MANIFEST, Manifest, Snapshot, read_manifest

STAMP: Final = ".sie-last-use"
KEEP_PARTIAL_S: Final = 24 * 3600.0
Now = Callable[[], float]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalCache:
    """Entries under `root`. `now` is wall-clock time: stamps are read by other processes."""

    root: Path
    now: Now = time.time

    def lock(self, name: str) -> EntryLock:
        """A lock on an entry, not taken yet."""
        return EntryLock(self.root / ".locks" / name)

    def find(self, snapshot: Snapshot) -> Path | None:
        """The folder of a complete entry; None when there is none, or a file of it is gone."""
        folder = self.root / snapshot.entry
        manifest = read_manifest(folder, snapshot)
        if manifest is None or any(_size(folder / file.path) != file.size for file in manifest.files):
            return None
        return folder

    def stamp(self, folder: Path) -> None:
        """Note that an entry is used now; one on a read-only disk just stays."""
        with contextlib.suppress(OSError):
            (folder / STAMP).touch()
            os.utime(folder / STAMP, (self.now(), self.now()))

    def begin(self, snapshot: Snapshot, manifest: Manifest) -> Path:
        """The folder to fetch an entry into, with what came before if it is of the same manifest."""
        folder = self.partial(snapshot)
        if read_manifest(folder, snapshot) != manifest:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        return folder

    def partial(self, snapshot: Snapshot) -> Path:
        """Where an entry is fetched to."""
        return self.root / ".partial" / snapshot.entry

    def adopt(self, snapshot: Snapshot) -> Path:
        """Make what was fetched the entry, in one step."""
        folder = self.root / snapshot.entry
        if folder.exists():
            self._delete(folder)  # it lacks a file, else nobody would have fetched it again
        self.stamp(self.partial(snapshot))
        self.partial(snapshot).rename(folder)
        return folder

    def entries(self) -> Iterator[tuple[Path, Cached]]:
        """Every folder of a model, complete or not, with its size on the disk."""
        for parent in (self.root, self.root / ".partial"):
            for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
                if (folder / MANIFEST).is_file():
                    yield folder, Cached(str(folder.relative_to(self.root)), size_of(folder), _last_use(folder))

    def evict(self, name: str) -> bool:
        """Delete an entry unless somebody uses it."""
        folder = self.root / name
        lock = self.lock(folder.name)
        try:
            if not lock.try_exclude():
                return False
            self._delete(folder)
        except OSError as error:
            log.warning("the cached model %s cannot be deleted: %s", name, error)
            return False
        finally:
            lock.release()
        return True

    def is_used(self, name: str) -> bool:
        """True while any process reads or fetches an entry."""
        lock = self.lock(Path(name).name)
        try:
            return not lock.try_exclude()
        finally:
            lock.release()

    def outstanding(self, names: Collection[str]) -> int:
        """Bytes that are still to come of entries that are being fetched."""
        total = 0
        for name in names:
            folder = self.root / name
            with contextlib.suppress(OSError, ValueError):
                manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
                total += max(0, manifest.size - size_of(folder))
        return total

    def clean(self) -> None:
        """Delete what dead workers left: half deletions, and downloads that nobody went on with for a day."""
        trash = self.root / ".trash"  # itself it stays: another worker may be about to move something there
        for folder in list(trash.iterdir()) if trash.is_dir() else ():
            shutil.rmtree(folder, ignore_errors=True)
        for folder, cached in list(self.entries()):
            if folder.parent != self.root and self.now() - cached.last_used > KEEP_PARTIAL_S:
                self.evict(cached.name)

    def _delete(self, folder: Path) -> None:
        trash = self.root / ".trash" / uuid.uuid4().hex
        trash.parent.mkdir(exist_ok=True)
        folder.rename(trash)  # first, so that no half of it is ever found
        with contextlib.suppress(FileNotFoundError):  # another worker cleans up
            shutil.rmtree(trash)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; files that vanish meanwhile have none."""
    return sum(_size(path) or 0 for path in folder.rglob("*"))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _last_use(folder: Path) -> float:
    for path in (folder / STAMP, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0
