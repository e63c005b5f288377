"""Locks on entries of the cache, for threads and processes alike: readers share, who fetches or deletes is alone."""

import fcntl
import os
import threading
from pathlib import Path

POLL_S = 0.1  # a blocking lock could not be given up when the worker stops


class StoppedError(Exception):
    """The worker shuts down; nobody waits for the result any more."""


class EntryLock:
    """One user's lock on one entry. The kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def share(self, stop: threading.Event) -> None:
        """Wait until nobody changes the entry, then keep it from changing.

        Raises:
            StoppedError: `stop` was set first.
        """
        self._wait(fcntl.LOCK_SH, stop)

    def exclude(self, stop: threading.Event) -> None:
        """Wait until nobody else reads or changes the entry. Not for who shares it: others may share it for hours.

        Raises:
            StoppedError: `stop` was set first.
        """
        self._wait(fcntl.LOCK_EX, stop)

    def try_exclude(self) -> bool:
        """True when nobody else used the entry, and now nobody can. A share of one's own is given up in any case."""
        assert self._descriptor is not None, "the lock is released"  # noqa: S101 - a bug of the caller
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # else two that share could refuse each other again and again
        return self._try(fcntl.LOCK_EX)

    def release(self) -> None:
        """Give it up; again is no mistake."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _wait(self, kind: int, stop: threading.Event) -> None:
        while not self._try(kind):
            if stop.wait(POLL_S):
                raise StoppedError

    def _try(self, kind: int) -> bool:
        assert self._descriptor is not None, "the lock is released"  # noqa: S101 - a bug of the caller
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
