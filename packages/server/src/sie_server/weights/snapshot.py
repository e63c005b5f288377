"""What is fetched: one model at one revision, and the list of its files with their sizes and digests."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.selection import LORA_FILES, is_needed, select, select_lora

MANIFEST: Final = ".sie-manifest.json"
UNPINNED: Final = "main"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model of the hub at a revision, with its pickles or without, or with an ONNX graph for its weights.

    Or no model but a LoRA for one.
    """

    repo: str
    revision: str = UNPINNED
    allow_pickle: bool = False
    graph: str | None = None
    lora: bool = False

    @property
    def entry(self) -> str:
        """Its name in every cache."""
        name = f"{self.repo}@{self.revision}".replace("/", "--")
        if self.lora:
            return f"{name}+lora"
        if self.graph is not None:
            return f"{name}+{self.graph}".replace("/", "--")
        return f"{name}+pickle" if self.allow_pickle else name

    def has(self, path: str) -> bool:
        """True for a file that belongs to it; a path that leaves its folder never does."""
        return path in LORA_FILES if self.lora else is_needed(path, allow_pickle=self.allow_pickle, graph=self.graph)

    def choose(self, paths: Collection[str]) -> list[str]:
        """Its files of all that a repository has.

        Raises:
            LoadError: as `select` and `select_lora`.
        """
        if self.lora:
            return select_lora(paths)
        return select(paths, allow_pickle=self.allow_pickle, graph=self.graph)

    def __str__(self) -> str:
        return self.repo if self.revision == UNPINNED else f"{self.repo}@{self.revision}"


class File(msgspec.Struct, frozen=True):
    """One file of a snapshot. `digest` is `sha256:` or, as git names its blobs, `git-sha1:` with hexadecimal digits."""

    path: str
    size: int
    digest: str


class Manifest(msgspec.Struct, frozen=True):
    """All files of a snapshot; written last, so a folder that has one is complete."""

    repo: str
    revision: str
    commit: str | None
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def snapshot_of(source: WeightsSource) -> Snapshot:
    """What a source names on the hub.

    Raises:
        LoadError: NOT_FOUND when its id or revision cannot be one.
    """
    revision = source.hf_revision or UNPINNED
    for name in (source.hf_id or "", revision):
        if not _NAME.fullmatch(name):
            raise LoadError(ErrorClass.NOT_FOUND, f"'{name}' is neither a model of the hub nor a revision of one")
    return Snapshot(source.hf_id or "", revision, source.allow_pickle, source.graph, source.lora)


def decode_manifest(text: bytes, snapshot: Snapshot) -> Manifest:
    """The manifest of a snapshot.

    Raises:
        ValueError: it is none, is another snapshot's, or lists files that do not belong into a model's folder.
    """
    manifest = msgspec.json.decode(text, type=Manifest)
    if (manifest.repo, manifest.revision) != (snapshot.repo, snapshot.revision):
        raise ValueError(f"the manifest is that of {manifest.repo}@{manifest.revision}")
    for file in manifest.files:
        if not snapshot.has(file.path):
            raise ValueError(f"the manifest lists '{file.path}', which is no file of a model that is read here")
        if file.size < 0 or not _DIGEST.fullmatch(file.digest):
            raise ValueError(f"the manifest's entry of '{file.path}' is wrong")
    return manifest


def read_manifest(folder: Path, snapshot: Snapshot) -> Manifest | None:
    """The manifest in a folder; None where there is none that counts."""
    try:
        return decode_manifest((folder / MANIFEST).read_bytes(), snapshot)
    except (OSError, ValueError):
        return None


def digest_of(path: Path, like: str) -> str:
    """The digest of a file, of the same kind as another one."""
    if like.startswith("sha256:"):
        with path.open("rb") as opened:
            return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            blob.update(chunk)
    return f"git-sha1:{blob.hexdigest()}"
