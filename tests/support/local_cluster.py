"""A whole cluster for one test: `sie up` as its own process on a free port, and what a test may do to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import httpx

from sie_cli.ports import Ports

T = TypeVar("T")
SIE = Path(sys.executable).with_name("sie")


def eventually(probe: Callable[[], T], *, within_s: float = 60.0) -> T:
    """The first truthy answer of `probe`; fails the test when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(httpx.TransportError):
            if answer := probe():
                return answer
        assert time.monotonic() < deadline, f"{probe} gave nothing within {within_s} s"
        time.sleep(0.05)


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port of the loopback interface that nobody else gets; servers that set SO_REUSEADDR can listen on it."""
    with contextlib.closing(Ports()) as ports:
        yield ports.take()


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running `sie up`."""

    url: str
    process: subprocess.Popen[bytes]

    def health(self) -> dict[str, Any]:
        """`GET /health` of the router."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/health").json()
        return answer

    def workers(self, profile: str) -> list[dict[str, Any]]:
        """Healthy workers of one machine profile."""
        return [each for each in self.health()["workers"] if each["healthy"] and each["gpu"] == profile]

    def wait_for_workers(self, profile: str, count: int) -> list[dict[str, Any]]:
        """Wait until this many workers of a profile are healthy."""
        eventually(lambda: len(self.workers(profile)) == count)
        return self.workers(profile)

    def kill_worker(self, worker: dict[str, Any]) -> None:
        """SIGKILL the process that serves this worker."""
        os.kill(listener(int(worker["url"].rsplit(":", 1)[1])), signal.SIGKILL)


def listener(port: int) -> int:
    """Pid of the process that listens on this loopback port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and int(local.rsplit(":", 1)[1], 16) == port:
            return next(pid for pid in pids() if f"socket:[{inode}]" in open_files(pid))
    raise AssertionError(f"nobody listens on port {port}")


def pids() -> list[int]:
    """Every process there is."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def open_files(pid: int) -> list[str]:
    """What a process has open, sockets as `socket:[inode]`; nothing when it is gone."""
    files = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                files.append(str(link.readlink()))
    return files


@contextlib.contextmanager
def local_cluster(
    folder: Path, definition: str, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[LocalCluster]:
    """Run `sie up` with this cluster file until the block ends; it must then exit cleanly and leave no port in use."""
    with kept_port() as port:
        yield from _local_cluster(folder, definition, env, port)


def _local_cluster(folder: Path, definition: str, env: Mapping[str, str], port: int) -> Iterator[LocalCluster]:
    file, log = folder / "cluster.yaml", folder / "sie-up.log"
    file.write_text(definition)
    with log.open("wb") as output:
        command = [str(SIE), "up", "-f", str(file), "--port", str(port)]
        environment = {**os.environ, "TMPDIR": str(folder), **env}  # noqa: TID251 - what a child of this test runs in
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    cluster = LocalCluster(f"http://127.0.0.1:{port}", process)
    try:
        eventually(lambda: httpx.get(f"{cluster.url}/readyz").is_success)
        yield cluster
    except BaseException:
        print(log.read_text())  # noqa: T201 - pytest shows it beside the failure
        raise
    finally:
        process.send_signal(signal.SIGINT)
        exit_code = process.wait(60)
    assert exit_code == 0, log.read_text()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may linger, listeners may not
        probe.bind(("127.0.0.1", port))
