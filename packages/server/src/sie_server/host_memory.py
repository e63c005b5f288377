"""Memory of this process and of what bounds it: the container's limit, else the host's. Gives freed memory back.

A container's limit is that of its control group, of version 1 or 2; what the host has is no measure there, nor is what
other containers use. Of a group's usage the file cache that the kernel would drop by itself is not counted.
"""

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sie_protocol.malloc import M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt
from sie_server.core.memory import Reading

ROOT: Final = Path("/")
MB: Final = 1024 * 1024
LARGE_BYTES: Final = 1 * MB  # most tensors of weights are larger, most intermediate results of a batch are not
KEPT_BYTES: Final = 64 * MB  # of free memory at the end of a heap; what the C library itself settles on


def resident_bytes(root: Path = ROOT) -> int:
    """Memory of this process that is in RAM; 0 where the system does not tell."""
    text = _text(root / "proc/self/statm")
    return int(text.split()[1]) * mmap.PAGESIZE if text else 0


def read_memory(own_limit_bytes: int = 0, root: Path = ROOT) -> Reading | None:
    """The tightest of: this process against its own limit, the container, this process against the host.

    None where none is known, as on systems without `/proc`.
    """
    own = resident_bytes(root)
    readings = [*_groups(root), *_host(own, root)]
    if own_limit_bytes:
        readings.append(Reading(own, own_limit_bytes))
    return min(readings, key=lambda each: each.limit_bytes - each.used_bytes, default=None)


def configure_malloc() -> None:
    """Have the C library keep one heap with nothing large in it; before threads start, and where it can be told.

    By default it has eight heaps for each core, and gives back the free end of the first one only, which may be tens of
    megabytes; every load, which runs in a thread of its own, leaves crumbs in another one. It also starts to put blocks
    of up to 32 MB into heaps once such a block was freed, so that a model leaves holes behind, into which the kernel
    puts huge pages. What is large gets a mapping of its own instead, which ends when it is freed.
    """
    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def return_to_system() -> None:
    """Collect garbage and give what the C library keeps back to the system. Takes milliseconds: not for the loop."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def _host(own: int, root: Path) -> Iterator[Reading]:
    fields = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    if "MemTotal" in fields:
        yield Reading(own, int(fields["MemTotal"].split()[0]) * 1024)


def _groups(root: Path) -> Iterator[Reading]:
    """The control groups that bound this process: its own and every one above it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount = root / "sys/fs/cgroup/memory"
        else:
            continue
        # Inside a container the path may be the host's, and the files lie at the mount itself.
        own = mount / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(mount):
                yield from _group(folder, *names)


def _group(folder: Path, limit_file: str, usage_file: str, cache_key: str) -> Iterator[Reading]:
    limit, usage = _text(folder / limit_file).strip(), _text(folder / usage_file).strip()
    if limit.isdigit() and usage.isdigit():  # "max" is no limit
        stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
        yield Reading(max(0, int(usage) - int(stat.get(cache_key, 0))), int(limit))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
