"""Requests against a cluster, and when what happened: for tests that watch a cluster change."""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

import httpx

from lab.api import Refused

LOOK_EVERY_S: Final = 0.1


class Timeline:
    """Seconds since it began, of claims that came true one after the other, watched by a thread, and of marks."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def watch(self, claims: Mapping[str, Callable[[], bool]]) -> None:
        """Note when each comes true, each after the one before it."""
        self._thread = threading.Thread(target=self._look, args=(dict(claims),), daemon=True)
        self._thread.start()

    def mark(self, what: str) -> None:
        """Now."""
        self.seconds[what] = time.monotonic() - self._began

    def table(self) -> str:
        """One line each, in order of time."""
        lines = (
            f"  {seconds:6.1f} s  {what}" for what, seconds in sorted(self.seconds.items(), key=lambda each: each[1])
        )
        return "\n".join(("", *lines, ""))

    def _look(self, claims: dict[str, Callable[[], bool]]) -> None:
        for what, claim in claims.items():
            while not _holds(claim):
                if self._stop.wait(LOOK_EVERY_S):
                    return
            self.mark(what)


def _holds(claim: Callable[[], bool]) -> bool:
    try:
        return claim()
    except (httpx.HTTPError, Refused):
        return False
