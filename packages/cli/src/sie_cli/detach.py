"""`sie up --detach` and `sie down`: one cluster of this user in the background.

The background process holds a lock on a file that names it, for as long as it lives and however it ends. A file without
a lock is a leftover; no process is ever judged, or killed, by its number alone.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from sie_cli.logs import log_tail

STATE_FILE: Final = "up.json"
LOG_FILE: Final = "up.log"
READY_WITHIN_S: Final = 90.0
GONE_WITHIN_S: Final = 60.0  # the cluster's own grace, and a slow machine
POLL_S: Final = 0.05
GREETING: Final = "SIE answers on "


class DetachError(RuntimeError):
    """It cannot start or end; the message says what to do."""


class Running(msgspec.Struct, frozen=True):
    """The cluster in the background."""

    pid: int
    log: str
    urls: tuple[str, ...] = ()


def start(folder: Path, arguments: Sequence[str]) -> Running:
    """Run `sie up` with these arguments in the background, and return once its routers are ready.

    Raises:
        DetachError: one runs already, or it ended before it was ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG_FILE
    with (folder / STATE_FILE).open("a+b") as state, log.open("wb") as output:
        if not _locked(state):
            raise DetachError(f"a cluster runs already, on {' '.join(_read(state).urls)}; sie down stops it")
        command = [sys.executable, "-c", "from sie_cli.main import app; app()", "up", *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(state.fileno(),),  # the lock belongs to the open file, which the new process now shares
        )
        _write(state, Running(process.pid, str(log)))
        _until(lambda: _urls(log) or process.poll() is not None, READY_WITHIN_S)
        urls = _urls(log)
        if not urls:
            _end(process)
            raise DetachError(f"it was not ready:\n{log_tail(log)}")
        running = Running(process.pid, str(log), urls)
        _write(state, running)
        return running


def stop(folder: Path) -> Running | None:
    """End the cluster in the background and wait until it is gone; None when there is none.

    Raises:
        DetachError: it did not end.
    """
    with _open_state(folder) as state:
        if state is None or _locked(state):
            return None
        running = _read(state)
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
        if not _until(lambda: _locked(state), GONE_WITHIN_S):
            raise DetachError(f"process {running.pid} did not end within {GONE_WITHIN_S:.0f} s; its log: {running.log}")
        return running


@contextlib.contextmanager
def _open_state(folder: Path) -> Iterator[IO[bytes] | None]:
    try:
        file = (folder / STATE_FILE).open("r+b")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file


def _locked(state: IO[bytes]) -> bool:
    """Take the lock; False when another process holds it."""
    try:
        fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(state: IO[bytes], running: Running) -> None:
    state.truncate(0)
    state.seek(0)
    state.write(msgspec.json.encode(running))
    state.flush()


def _read(state: IO[bytes]) -> Running:
    state.seek(0)
    try:
        return msgspec.json.decode(state.read(), type=Running)
    except msgspec.DecodeError as error:
        raise DetachError("a cluster is starting or ending in the background; try again in a moment") from error


def _urls(log: Path) -> tuple[str, ...]:
    lines = log.read_text(errors="replace").splitlines()
    return next((tuple(line[len(GREETING) :].split()) for line in lines if line.startswith(GREETING)), ())


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(GONE_WITHIN_S)


def _until(claim: Callable[[], object], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
