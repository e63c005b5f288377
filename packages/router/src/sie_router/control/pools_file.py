"""Pools of the routers of one machine: a JSON file that survives them and that they share."""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import msgspec

from sie_router.control.pools import Bounds, Snapshots, Step, unavailable
from sie_router.core.events import PoolEvent
from sie_router.core.pools import MAX_WORKERS, Pool

POLL_S: Final = 0.2  # a file of another process tells nobody that it changed; looking costs some microseconds

logger = logging.getLogger(__name__)


class FilePools:
    """A `PoolStore` in one file. It is replaced as a whole, so readers need no lock; writers queue for a lock file."""

    def __init__(self, path: Path, max_workers: int = MAX_WORKERS) -> None:
        self._path = path
        self._bounds = Bounds(max_workers)
        self._lock = path.with_name(path.name + ".lock")

    async def watch(self) -> AsyncGenerator[PoolEvent]:
        """As the protocol says. A file that cannot be read changes nothing, the last pools stand."""
        seen, complained, last = Snapshots(), False, (-1, -1, -1)
        while True:
            stamp = _stamp(self._path)
            if stamp != last or complained:
                try:
                    pools = _read(self._path)
                except (OSError, msgspec.MsgspecError) as error:
                    if not complained:
                        logger.warning(
                            "the pools in '%s' cannot be read, the last ones known stay: %s", self._path, error
                        )
                    complained = True
                else:
                    last, complained = stamp, False
                    sound = {name: pool for name, each in pools.items() if (pool := self._bounds(each)) is not None}
                    for event in seen.events(sound):
                        yield event
            await asyncio.sleep(POLL_S)

    async def get(self, name: str) -> Pool | None:
        """As the protocol says."""
        try:
            return self._bounds((await asyncio.to_thread(_read, self._path)).get(name))
        except (OSError, msgspec.MsgspecError) as error:
            raise unavailable(error) from error

    async def change(self, name: str, step: Step) -> Pool | None:
        """As the protocol says."""
        try:
            return await asyncio.to_thread(self._change, name, step)
        except (OSError, msgspec.MsgspecError) as error:
            raise unavailable(error) from error

    def _change(self, name: str, step: Step) -> Pool | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as lock:  # closing it gives the lock back, also when the process dies
            fcntl.flock(lock, fcntl.LOCK_EX)
            pools = _read(self._path)
            after = step(self._bounds(pools.get(name)))
            if after != pools.pop(name, None):
                kept = pools if after is None else {**pools, name: after}
                _write(self._path, sorted(kept.values(), key=lambda pool: pool.name))
            return after


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes with the file; every version is a file of its own."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def _read(path: Path) -> dict[str, Pool]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    return {pool.name: pool for pool in msgspec.json.decode(data, type=list[Pool])}


def _write(path: Path, pools: list[Pool]) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(pools), indent=1))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
