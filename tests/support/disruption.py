"""Harm that is done to a cluster, and what is looked at meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from chart_render import Object
from deployed import Release
from lab.api import Refused

PROC: Final = Path("/proc")
LOOK_EVERY_S: Final = 0.1
CHUNK_BYTES: Final = 16 << 20
# Takes memory until it is killed, or until it may not: it is never the process that has most.
HOG: Final = f"""
import sys
sys.stdin.readline()
kept = []
while True:
    kept.append(bytearray(b"x" * {CHUNK_BYTES}))
"""


class Watch:
    """The smallest and the largest of a number while a block runs, looked at ten times a second."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.seen: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            with suppress(Refused):
                self.seen.append(self._look())


def main_process(pod: Object) -> int:
    """The pid, as this process sees it, of the first process of a pod's container.

    Raises:
        LookupError: the pod has no container that runs.
    """
    (status,) = pod["status"]["containerStatuses"]
    container = status["containerID"].rpartition("/")[2]
    found = [int(each.name) for each in PROC.iterdir() if each.name.isdigit() and container in _groups(each)]
    if not found:
        raise LookupError(f"no process of container {container}")
    return min(found)


def _groups(process: Path) -> str:
    with suppress(OSError):
        return (process / "cgroup").read_text()
    return ""


def freeze(pod: Object) -> None:
    """Stop every thread of a pod's program, as a driver that hangs would; its connections stay open."""
    os.kill(main_process(pod), signal.SIGSTOP)


@contextmanager
def memory_taken(pod: Object) -> Generator[None]:
    """Take all the memory that a pod's container may have, so that the kernel kills its program."""
    hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE)
    try:
        (memory_group(main_process(pod)) / "cgroup.procs").write_text(str(hog.pid))
        assert hog.stdin is not None
        hog.stdin.write(b"\n")
        hog.stdin.flush()
        yield
    finally:
        hog.kill()
        hog.communicate()


def memory_group(pid: int) -> Path:
    """Where the kernel keeps the memory of this process's container, in control groups of version 1 or 2."""
    root = Path("/sys/fs/cgroup")
    for line in (PROC / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            unified = root / path.lstrip("/")
        elif "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/")
    return unified


def restarts(release: Release, name: str) -> int:
    """How often the container of a worker was started again."""
    statuses = [
        each
        for pod in release.workers()
        if pod["metadata"]["name"] == name
        for each in pod["status"].get("containerStatuses", ())
    ]
    return sum(int(each["restartCount"]) for each in statuses)


def settle(seconds: float) -> None:
    """Let this much time pass: for claims about what does not happen."""
    time.sleep(seconds)
