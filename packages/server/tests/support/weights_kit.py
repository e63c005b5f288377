"""Models of random bytes, and stores that fetch them."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.core.disk import Disk, DiskLimits
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.cluster import ClusterCache
from sie_server.weights.download import Source
from sie_server.weights.local_cache import LocalCache
from sie_server.weights.snapshot import File, Manifest, Snapshot, digest_of
from sie_server.weights.store import FetchRecord, StorePorts, WeightsStore

MIB = 1 << 20
LARGE_DISK = Disk(1 << 50, 1 << 50)


def write_model(folder: Path, size: int = 3 * MIB, seed: int = 0, more: Mapping[str, str] | None = None) -> Path:
    """A folder as published, which only looks like a model; `more` are contents of other files."""
    folder.mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    files = {"config.json": "{}", "tokenizer.json": '{"a": 1}', "1_Pooling/config.json": "[]", **(more or {})}
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "model.safetensors").write_bytes(random.Random(seed).randbytes(size))
    return folder


@dataclass(slots=True)
class Kit:
    """A store and all that it said; time passes by one second a look."""

    root: Path
    sources: Sequence[Source]
    publisher: ClusterCache | None = None
    limits: DiskLimits | None = field(default_factory=DiskLimits)
    disk: Callable[[Path], Disk] = lambda _: LARGE_DISK
    fetched: list[FetchRecord] = field(default_factory=list)
    evicted: list[int] = field(default_factory=list)
    now: float = 1_000_000.0

    def tick(self) -> float:
        """The wall clock."""
        self.now += 1.0
        return self.now

    @property
    def cache(self) -> LocalCache:
        """The cache of the store."""
        return LocalCache(self.root, self.tick)

    def store(self) -> WeightsStore:
        """A new store, as of another worker on this disk."""
        ports = StorePorts(self.limits, self.disk, self.tick, self.fetched.append, self.evicted.append)
        return WeightsStore(self.cache, self.sources, self.publisher, ports)

    def names(self) -> set[str]:
        """The complete models in the cache."""
        return {path.name for path in self.root.iterdir() if not path.name.startswith(".")}


def source(name: str = "org/m", revision: str | None = None, *, allow_pickle: bool = False) -> WeightsSource:
    """A model of the hub."""
    return WeightsSource(hf_id=name, hf_revision=revision, allow_pickle=allow_pickle)


def files_of(folder: Path) -> Mapping[str, bytes]:
    """What a folder holds, but for our own notes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".sie-")
    }


def manifest_of(folder: Path, snapshot: Snapshot) -> Manifest:
    """The manifest of what is needed of a folder."""
    chosen = snapshot.choose(list(files_of(folder)))
    listed = (File(path, (folder / path).stat().st_size, digest_of(folder / path, "sha256:")) for path in chosen)
    return Manifest(snapshot.repo, snapshot.revision, None, tuple(listed))


def refused(store: WeightsStore, wanted: WeightsSource) -> tuple[ErrorClass, str]:
    """The class and text of a refusal that must come."""
    try:
        store.pin(wanted).release()
    except LoadError as error:
        return error.error_class, str(error)
    raise AssertionError("the model was not refused")
