"""Brings the files of a manifest into a folder: several at once, resumed where they ended, checked by digest."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.local_cache import size_of
from sie_server.weights.locks import StoppedError
from sie_server.weights.snapshot import File, Manifest, Snapshot, digest_of

FILES_AT_ONCE: Final = 4
ATTEMPTS: Final = 3  # each goes on where the last one ended
PROGRESS_EVERY_S: Final = 5.0
PART: Final = ".part"  # the end of a file's name until its digest is right

log = logging.getLogger(__name__)


class Source(Protocol):
    """A place that has models."""

    @property
    def kind(self) -> str:
        """`cluster` or `hub`: a label of metrics."""

    def find(self, snapshot: Snapshot) -> Manifest | None:
        """The files of a snapshot; None when it is not there.

        Raises:
            LoadError: the place cannot be asked, or refuses.
        """

    def fetch(self, snapshot: Snapshot, manifest: Manifest, file: File, sink: "Sink") -> None:
        """Append the bytes of a file from `sink.tell()` on; less than all when the connection ends early.

        Raises:
            LoadError: the place cannot be asked, or refuses.
        """


class Sink:
    """A file being written. Ends the download when the worker stops or more comes than was announced."""

    def __init__(self, file: BinaryIO, size: int, is_stopped: Callable[[], bool]) -> None:
        self._file = file
        self._size = size
        self._is_stopped = is_stopped

    def write(self, data: bytes | memoryview) -> int:
        """Append.

        Raises:
            StoppedError: the worker stops.
            LoadError: OOM when the disk refuses, NETWORK when the file gets longer than it should be.
        """
        if self._is_stopped():
            raise StoppedError
        if self._file.tell() + len(data) > self._size:
            raise LoadError(ErrorClass.NETWORK, f"more than the announced {self._size} bytes came; try again")
        with _writing():
            return self._file.write(data)

    def tell(self) -> int:
        """How much is there."""
        return self._file.tell()

    def seek(self, offset: int) -> int:
        """Go back, to begin again."""
        return self._file.seek(offset)

    def truncate(self) -> int:
        """Drop what comes after the position."""
        return self._file.truncate()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Refusals of the disk, which come when a file is closed as well as when it is written."""
    try:
        yield
    except OSError as error:
        message = f"the model cannot be written to the local cache: {error.strerror}"
        raise LoadError(ErrorClass.OOM, message) from error


def download(source: Source, snapshot: Snapshot, manifest: Manifest, folder: Path, stop: threading.Event) -> None:
    """Complete a folder; what it has already is kept.

    Raises:
        LoadError: of the first file that cannot be had; the rest is given up, what came stays.
        StoppedError: `stop` was set.
    """
    given_up = threading.Event()

    def is_stopped() -> bool:
        return stop.is_set() or given_up.is_set()

    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="fetch") as pool:
        futures = {
            pool.submit(_complete, source, snapshot, manifest, file, folder, is_stopped) for file in manifest.files
        }
        running = set(futures)
        while running:
            done, running = wait(running, PROGRESS_EVERY_S, FIRST_EXCEPTION)
            if any(each.exception() for each in done):
                given_up.set()
                break
            if running:
                log.info(
                    "%s: %d of %d MB from the %s", snapshot, present(folder) >> 20, manifest.size >> 20, source.kind
                )
    errors = [error for each in futures if (error := each.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, StoppedError))


def present(folder: Path) -> int:
    """Bytes of what has come so far; files are renamed meanwhile."""
    return size_of(folder)


@_writing()
def _complete(
    source: Source, snapshot: Snapshot, manifest: Manifest, file: File, folder: Path, is_stopped: Callable[[], bool]
) -> None:
    target = folder / file.path
    if target.is_file() and target.stat().st_size == file.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    for attempt in range(ATTEMPTS):
        try:
            _append(part, file.size, is_stopped, lambda sink: source.fetch(snapshot, manifest, file, sink))
            break
        except LoadError as error:
            if error.error_class is not ErrorClass.NETWORK or attempt == ATTEMPTS - 1:
                raise
            log.warning("%s: %s ended early, going on from there: %s", snapshot, file.path, error)
    found = digest_of(part, file.digest)
    if found != file.digest:
        part.unlink()
        message = f"'{file.path}' of '{snapshot}' came damaged from the {source.kind}: {found}, not {file.digest}"
        raise LoadError(ErrorClass.NETWORK, message)
    part.rename(target)


def _append(part: Path, size: int, is_stopped: Callable[[], bool], fetch: Callable[[Sink], None]) -> None:
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    with part.open("ab") as opened:
        if opened.tell() < size:
            fetch(Sink(opened, size, is_stopped))
        if opened.tell() < size:
            raise LoadError(ErrorClass.NETWORK, f"'{part.stem}' ended after {opened.tell()} of {size} bytes; try again")
        opened.flush()
        os.fsync(opened.fileno())
