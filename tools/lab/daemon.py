"""One server process of the lab: started with its output in a log file, watched until ready, stopped for certain."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from sie_cli import child

READY_WITHIN_S: Final = 60.0
GRACE_S: Final = 5.0  # an API server with open watches takes longer than a test wants to wait
PROBE_EVERY_S: Final = 0.05
SHOWN_BYTES: Final = 8_000


class DaemonError(RuntimeError):
    """A server did not come up; the message ends with the last of its log."""


class Daemon:
    """A running server that cannot outlive this process."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        launcher = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal reaches the parent only, which stops things in order
            )

    @property
    def is_running(self) -> bool:
        """True until the process ends."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once the claim holds.

        Raises:
            DaemonError: the process ended, or is not ready in time.
        """
        try:
            wait_until(lambda: not self.is_running or _holds(ready))
        except TimeoutError as error:
            raise DaemonError(f"{self.name}: {error}\n{self.tail()}") from error
        if not self.is_running:
            raise DaemonError(f"{self.name} ended with status {self._process.returncode}\n{self.tail()}")

    def stop(self) -> None:
        """End the process, in peace if it can; harmless when it is gone."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        if self.is_running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Take its time away, as a busy node may."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Give it back."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def tail(self) -> str:
        """The last lines of the log."""
        text = self.log.read_bytes()[-SHOWN_BYTES:].decode(errors="replace")
        return f"--- the end of {self.log}\n{text}"


def wait_until(claim: Callable[[], bool], within_s: float = READY_WITHIN_S) -> None:
    """Return once the claim holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {within_s:.0f} s")
        time.sleep(PROBE_EVERY_S)


def _holds(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except httpx.TransportError:
        return False
