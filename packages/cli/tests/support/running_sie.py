"""Runs `sie` as a user does, in a pipe or at a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Self

from sie_cli.settings import load

SIE = str(Path(sys.executable).with_name("sie"))
BOUND_S = 60.0
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def sie(*arguments: str, given: str = "", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [SIE, *arguments],
        input=given,
        env={**load().inherited, **(env or {})},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


class AtTerminal:
    """One command whose stderr is a terminal, with `whole` also stdin and stdout; use as a context manager."""

    def __init__(self, *arguments: str, env: Mapping[str, str], whole: bool = False, bound_s: float = BOUND_S) -> None:
        self._arguments = arguments
        self._bound_s = bound_s
        self._whole = whole
        self._env = env
        self.shown = ""

    def __enter__(self) -> Self:
        ours, theirs = pty.openpty()
        self._screen = ours
        self.process = subprocess.Popen(
            [SIE, *self._arguments],
            stdin=theirs if self._whole else subprocess.DEVNULL,
            stdout=theirs if self._whole else subprocess.PIPE,
            stderr=theirs,
            env={**load().inherited, "TERM": "xterm", "COLUMNS": "120", **self._env},
        )
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self._screen)

    def until(self, claim: Callable[[], bool]) -> None:
        """Read the screen until something is so."""
        deadline = monotonic() + self._bound_s
        while not claim():
            assert monotonic() < deadline, f"not within {self._bound_s} s; the screen shows {self.shown[-500:]}"
            self._read(0.02)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if any, and read the screen until the end; the exit status."""
        if number is not None:
            self.process.send_signal(number)
        self.until(lambda: self.process.poll() is not None)
        while self._read(0):
            pass
        assert self.process.returncode is not None
        return self.process.returncode

    def press(self, key: str) -> None:
        """Type on the terminal."""
        os.write(self._screen, key.encode())

    @property
    def counts(self) -> list[int]:
        """The numbers of records that the progress bar showed."""
        return [int(found) for found in re.findall(r"(\d+)/\d+", COLOURS.sub("", self.shown))]

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._screen], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # the other side closed it
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)
