"""The cluster's cache: models in a bucket or on a shared disk, near the workers.

An entry is a prefix with the files of a model and their manifest. Nothing is ever listed: the manifest names the files,
so a worker needs the right to read objects and no other.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.download import Sink
from sie_server.weights.snapshot import MANIFEST, File, Manifest, Snapshot, decode_manifest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RANGE_BYTES: Final = 8 * 1024 * 1024
RANGES_AT_ONCE: Final = 4  # of one file
RETRY_FOR_S: Final = 30.0


class ClusterCache:
    """Models below a URL (`gs://`, `s3://`, `abfss://`, `file://`) or a path."""

    kind = "cluster"

    def __init__(self, url: str, store: "ObjectStore") -> None:
        self._url = url
        self._store = store

    def find(self, snapshot: Snapshot) -> Manifest | None:
        """The manifest of an entry; None when there is no entry.

        Raises:
            LoadError: NETWORK when the cache cannot be asked, GATED when it refuses, UNKNOWN for a wrong manifest.
        """
        import obstore  # noqa: PLC0415 - only workers with such a cache pay for it
        from obstore.exceptions import NotFoundError  # noqa: PLC0415 - the same

        with self._translated():
            try:
                text = obstore.get(self._store, _path(snapshot, MANIFEST)).bytes()
            except (NotFoundError, FileNotFoundError):
                return None
        try:
            return decode_manifest(bytes(text), snapshot)
        except ValueError as error:
            raise LoadError(ErrorClass.UNKNOWN, f"'{snapshot}' in the cache {self._url}: {error}") from error

    def fetch(self, snapshot: Snapshot, manifest: Manifest, file: File, sink: Sink) -> None:  # noqa: ARG002 - all in `file`
        """Append the rest of a file, several ranges at once.

        Raises:
            LoadError: NETWORK, GATED.
        """
        import obstore  # noqa: PLC0415 - only workers with such a cache pay for it

        path = _path(snapshot, file.path)
        with self._translated(), ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="range") as pool:
            found = obstore.head(self._store, path)["size"]
            if found != file.size:
                message = f"'{path}' in the cache {self._url} has {found} bytes, its manifest says {file.size}"
                raise LoadError(ErrorClass.NETWORK, message)
            pending: deque[Future[Any]] = deque()
            for start in range(sink.tell(), file.size, RANGE_BYTES):
                end = min(start + RANGE_BYTES, file.size)
                pending.append(pool.submit(obstore.get_range, self._store, path, start=start, end=end))
                if len(pending) == RANGES_AT_ONCE:
                    sink.write(memoryview(pending.popleft().result()))
            while pending:
                sink.write(memoryview(pending.popleft().result()))

    def publish(self, snapshot: Snapshot, manifest: Manifest, folder: Path) -> bool:
        """Put a complete entry there for others, its manifest last; False when there is one already.

        Raises:
            LoadError: NETWORK, GATED.
        """
        import obstore  # noqa: PLC0415 - only workers with such a cache pay for it

        if self.find(snapshot) is not None:
            return False
        with self._translated():
            for file in manifest.files:
                obstore.put(self._store, _path(snapshot, file.path), folder / file.path)
            obstore.put(self._store, _path(snapshot, MANIFEST), msgspec.json.encode(manifest))
        return True

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the store as refusals that say what to do."""
        from obstore.exceptions import (  # noqa: PLC0415 - only workers with such a cache pay for it
            BaseError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            message = f"the cache {self._url} refuses this worker: its service account needs the right to objects there"
            raise LoadError(ErrorClass.GATED, message) from error
        except (BaseError, OSError) as error:
            raise LoadError(
                ErrorClass.NETWORK, f"the cache {self._url} cannot be used ({type(error).__name__})"
            ) from error


def open_cluster_cache(url: str, *, create: bool = False) -> ClusterCache:
    """The cache at a URL or path; credentials are found as the cloud's own tools find them. `create`: make the folder.

    Raises:
        ValueError: it is no such URL, or a folder that is not there.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - only workers with such a cache pay for it
    from obstore.store import LocalStore, from_url  # noqa: PLC0415 - the same

    try:
        if "://" not in url:
            return ClusterCache(url, LocalStore(Path(url).absolute(), mkdir=create))
        if url.startswith("file://"):
            return ClusterCache(url, from_url(url, mkdir=create))
        retry = {"retry_timeout": timedelta(seconds=RETRY_FOR_S)}
        return ClusterCache(url, from_url(url, retry_config=retry))  # type: ignore[call-overload]  # by scheme
    except (BaseError, OSError, ValueError) as error:
        raise ValueError(f"the cluster cache '{url}' cannot be used: {str(error).splitlines()[0]}") from error


def _path(snapshot: Snapshot, name: str) -> str:
    return f"{snapshot.entry}/{name}"
