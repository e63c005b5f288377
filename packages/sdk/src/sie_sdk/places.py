"""Which of a client's calls the router keeps: one for each thing that is waited for, and never most of the connections.

The others sleep here until that one brought news. So a list in parts, or a thousand calls at once, take one place of
the router, and the connections of the client stay free for what can be served.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sie_sdk.hold import is_news
from sie_sdk.messages import HoldKey, Outcome


class Bell(Protocol):
    """An event of threads or of asyncio."""

    def set(self) -> None:
        """Wake whoever waits."""
        ...


B = TypeVar("B", bound=Bell)


@dataclass(slots=True)
class Line(Generic[B]):
    """Those who wait for the same; `is_kept` while the router keeps a request of one of them."""

    bell: B
    size: int = 0
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Place(Generic[B]):
    """One call's place: `is_kept` tells to send the request, otherwise `bell` rings when there is news."""

    bell: B
    is_kept: bool
    came: Callable[[Outcome], None]


class Places(Generic[B]):
    """Bounded by `limit` kept requests; for any number of threads. `new_bell` makes events."""

    def __init__(self, limit: int, new_bell: Callable[[], B]) -> None:
        self._limit = limit
        self._new_bell = new_bell
        self._lock = threading.Lock()  # guards the two below
        self._lines: dict[HoldKey, Line[B]] = {}
        self._kept = 0

    @contextmanager
    def take(self, key: HoldKey) -> Iterator[Place[B]]:
        """A place for as long as the block runs; whoever is kept says by `came` what came of it."""
        with self._lock:
            line = self._lines.setdefault(key, Line(self._new_bell()))
            is_kept = not line.is_kept and self._kept < self._limit
            line.size += 1
            line.is_kept |= is_kept
            self._kept += is_kept
        try:
            yield Place(line.bell, is_kept, lambda outcome: self._came(key, line, outcome))
        finally:
            with self._lock:
                line.size -= 1
                line.is_kept &= not is_kept
                self._kept -= is_kept
                if not line.size:
                    self._forget(key, line)

    def close(self) -> None:
        """Wake everybody: the client is closed."""
        with self._lock:
            for line in self._lines.values():
                line.bell.set()

    def _came(self, key: HoldKey, line: Line[B], outcome: Outcome) -> None:
        if is_news(outcome):
            with self._lock:
                self._forget(key, line)  # whoever waits from now on waits for other news
                line.bell.set()

    def _forget(self, key: HoldKey, line: Line[B]) -> None:
        if self._lines.get(key) is line:
            del self._lines[key]
