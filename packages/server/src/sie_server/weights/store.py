"""Gives every model its folder: one that is there, or one fetched from the first source that has it."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.adapters.shared.location import find_local, locate
from sie_server.core.disk import Disk, DiskLimits, NoRoom, make_room
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.download import Source, download
from sie_server.weights.local_cache import LocalCache, size_of
from sie_server.weights.locks import POLL_S, EntryLock, StoppedError
from sie_server.weights.snapshot import UNPINNED, Manifest, Snapshot, snapshot_of

GIB: Final = 1 << 30
SPACE: Final = ".space"  # the lock of who decides what to delete

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """One download that ended. `kind` is that of its source, `size` what came; without `is_complete` not all did."""

    kind: str
    size: int
    seconds: float
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model's folder that nobody deletes until `release`, which may be called again."""

    folder: Path
    release: Callable[[], None] = lambda: None


class Publisher(Protocol):
    """Where models fetched from elsewhere are put for others."""

    def publish(self, snapshot: Snapshot, manifest: Manifest, folder: Path) -> bool:
        """Put it there; False when it is there."""


def usage(folder: Path) -> Disk:
    """The disk that a folder is on, or will be."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    found = shutil.disk_usage(existing)
    return Disk(found.total, found.free)


@dataclass(frozen=True, slots=True)
class StorePorts:
    """What the store needs of the outside. `limits` None: nothing is ever deleted."""

    limits: DiskLimits | None = field(default_factory=DiskLimits)
    disk: Callable[[Path], Disk] = usage
    clock: Callable[[], float] = time.monotonic
    fetched: Callable[[FetchRecord], None] = lambda _: None
    evicted: Callable[[int], None] = lambda _: None


def local_only(source: WeightsSource) -> PinnedModel:
    """Models of this machine's own folders and packages; for a worker without caches.

    Raises:
        LoadError: NOT_FOUND.
    """
    return PinnedModel(locate(source))


class WeightsStore:
    """The caches of one worker. Blocks; called from threads, several at once."""

    def __init__(
        self, cache: LocalCache, sources: Sequence[Source], publisher: Publisher | None, ports: StorePorts
    ) -> None:
        self._cache = cache
        self._sources = sources
        self._publisher = publisher
        self._ports = ports
        self._stop = threading.Event()

    def pin(self, source: WeightsSource) -> PinnedModel:
        """The folder of a model; several callers that want the same one wait for one download.

        Raises:
            LoadError: where it was looked for, what was found and what to do.
            StoppedError: the worker stops.
        """
        if find_local(source) is not None or source.hf_id is None:
            return PinnedModel(locate(source))
        snapshot = snapshot_of(source)
        try:
            lock = self._cache.lock(snapshot.entry)
        except OSError as error:
            folder = self._cache.find(snapshot)
            if folder is None:
                raise _no_cache(self._cache.root, error) from error
            return PinnedModel(folder)  # on a read-only disk, where nobody deletes it
        try:
            return PinnedModel(self._folder(snapshot, lock), lock.release)
        except BaseException:
            lock.release()
            raise

    def clean(self) -> None:
        """Delete what dead workers left behind."""
        self._cache.clean()

    def close(self) -> None:
        """End what is being fetched; the rest of it can be fetched later. What is held stays so."""
        self._stop.set()

    def _folder(self, snapshot: Snapshot, lock: EntryLock) -> Path:
        while True:  # ends unless others delete the entry whenever it was fetched
            lock.share(self._stop)
            folder = self._cache.find(snapshot)
            if folder is not None:
                self._cache.stamp(folder)
                return folder
            if lock.try_exclude():
                if self._cache.find(snapshot) is None:
                    self._fetch(snapshot)
            elif self._stop.wait(POLL_S):
                raise StoppedError

    def _fetch(self, snapshot: Snapshot) -> None:
        failures: list[LoadError] = []
        for source in self._sources:
            try:
                manifest = source.find(snapshot)
                if manifest is not None:
                    self._fetch_from(source, snapshot, manifest)
                    return
            except LoadError as error:
                log.warning("%s does not come from the %s: %s", snapshot, source.kind, error)
                failures.append(error)
                if error.error_class is ErrorClass.OOM:
                    break  # the disk is full wherever the model comes from
        if failures:
            raise _summary(failures)
        raise LoadError(
            ErrorClass.NOT_FOUND,
            f"'{snapshot}' is in none of: {', '.join(['local cache', *(each.kind for each in self._sources)])}; put it "
            "into the cluster's cache, allow the hub (SIE_HF_FALLBACK), or set weights_path in the catalogue",
        )

    def _fetch_from(self, source: Source, snapshot: Snapshot, manifest: Manifest) -> None:
        started = self._ports.clock()
        folder, missing = self._begin(snapshot, manifest)
        log.info("%s: fetching %d of %d MB from the %s", snapshot, missing >> 20, manifest.size >> 20, source.kind)
        before, is_complete = size_of(folder), False
        try:
            download(source, snapshot, manifest, folder, self._stop)
            is_complete = True
        finally:
            seconds, came = self._ports.clock() - started, max(0, size_of(folder) - before)
            self._ports.fetched(FetchRecord(source.kind, came, seconds, is_complete))
        try:
            adopted = self._cache.adopt(snapshot)
        except OSError as error:
            raise _no_cache(self._cache.root, error) from error
        log.info("%s: fetched from the %s in %.1f s", snapshot, source.kind, seconds)
        if snapshot.revision == UNPINNED and manifest.commit:
            log.warning("%s is not pinned; its catalogue file should say hf_revision: %s", snapshot, manifest.commit)
        if self._publisher is not None:
            self._publish(self._publisher, snapshot, manifest, adopted)

    def _publish(self, publisher: Publisher, snapshot: Snapshot, manifest: Manifest, folder: Path) -> None:
        try:
            if publisher.publish(snapshot, manifest, folder):
                log.info("%s: published in the cluster's cache", snapshot)
        except LoadError as error:
            log.warning("%s could not be published: %s", snapshot, error)

    def _begin(self, snapshot: Snapshot, manifest: Manifest) -> tuple[Path, int]:
        """A folder to fetch into, with room for what is missing; and how much that is."""
        space = self._cache.lock(SPACE)
        try:
            space.exclude(self._stop)
            folder = self._cache.begin(snapshot, manifest)
            missing = max(0, manifest.size - size_of(folder))
            self._make_room(snapshot, missing)
        except OSError as error:
            raise _no_cache(self._cache.root, error) from error
        finally:
            space.release()
        return folder, missing

    def _make_room(self, snapshot: Snapshot, missing: int) -> None:
        """Delete models until the rest of one fits beside what others are still fetching.

        Raises:
            LoadError: OOM when it cannot fit.
        """
        entries = [cached for _, cached in self._cache.entries() if Path(cached.name).name != snapshot.entry]
        used = {cached.name for cached in entries if self._cache.is_used(cached.name)}
        idle = [cached for cached in entries if cached.name not in used]
        needed = missing + self._cache.outstanding(used)
        cached_bytes = sum(cached.size for cached in entries) + size_of(self._cache.partial(snapshot))
        disk, limits = self._ports.disk(self._cache.root), self._ports.limits
        plan = make_room(needed, idle if limits else (), cached_bytes, disk, limits or DiskLimits())
        if isinstance(plan, NoRoom):
            raise LoadError(
                ErrorClass.OOM,
                f"the local cache {self._cache.root} has no room for '{snapshot}': it needs {missing / GIB:.2f} GiB, "
                f"{disk.free / GIB:.2f} GiB are free and {plan.short_bytes / GIB:.2f} GiB would still be missing "
                "with every unused model deleted; give it a larger disk or this worker fewer models",
            )
        for victim in plan.models:
            if self._cache.evict(victim.name):
                log.info("deleted %s from the local cache: %d MB", victim.name, victim.size >> 20)
                self._ports.evicted(victim.size)


def _summary(failures: Sequence[LoadError]) -> LoadError:
    """One refusal; it passes by itself if one of them does."""
    passes = any(each.error_class is ErrorClass.NETWORK for each in failures)
    kind = ErrorClass.NETWORK if passes else failures[-1].error_class
    return LoadError(kind, "; ".join(map(str, failures)))


def _no_cache(root: Path, error: OSError) -> LoadError:
    message = f"the local cache {root} cannot be written: {error.strerror}; set SIE_LOCAL_CACHE to a folder that can"
    return LoadError(ErrorClass.OOM, message)
