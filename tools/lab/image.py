"""A container image without a registry or a builder: one layer, in the archive that `ctr images import` reads."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}  # as container images call it


def pack(name: str, files: dict[str, Path], entrypoint: Sequence[str], archive: Path) -> None:
    """Write an image NAME:TAG of these executables, given by their path inside, to a docker archive."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for inside, file in files.items():
            tar.add(file, inside, filter=_executable)
    content = layer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    config = {
        "architecture": ARCHITECTURE[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": _json(config), "manifest.json": _json(manifest), "layer.tar": content}
    with tarfile.open(archive, "w") as tar:
        for part, data in parts.items():
            entry = tarfile.TarInfo(part)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 0, 0, "", ""
    return entry
