"""Starts a server that embeds, waits until it does, and ends it."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import MODEL
from sie_protocol.headers import JSON, operation_path

START_S = 180.0


@dataclass(frozen=True, slots=True)
class Started:
    """A server that answers; `seconds` from the start of its process to its first answer."""

    seconds: float
    pid: int


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_worker(port: int) -> list[str]:
    """The command of this project's worker."""
    command = str(Path(sys.executable).with_name("sie-server"))
    return [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--models", MODEL, "--log-level", "warning"]


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, path: str, body: object, env: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """A server that answers this request."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not _answers(port, path, body):
                if process.poll() is not None or time.perf_counter() - started > START_S:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read()}")
                time.sleep(0.05)
            yield Started(time.perf_counter() - started, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def native(model: str) -> tuple[str, object]:
    """The first request of a server with `/v1/encode`."""
    return operation_path("encode", model), {"items": [{"text": "hello"}]}


def _answers(port: int, path: str, body: object) -> bool:
    head = {"content-type": JSON, "accept": JSON}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), head)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - a server started here
            return bool(reply.status == 200)  # noqa: PLR2004 - HTTP's OK; a 202 is none
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
