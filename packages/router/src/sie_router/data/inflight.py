"""Requests on their way: per worker for routing, per group and pool for the activity signal. The one mutable object."""

from collections.abc import Callable, Container, Mapping
from typing import Final

from sie_router.core.fleet import Group, Worker
from sie_router.core.pools import DEFAULT_POOL

WINDOW_S: Final = 60
_SLOTS: Final = 64


class _Window:
    """Sent requests of the last minute in one-second slots, and those without an answer yet."""

    __slots__ = ("counts", "now_in_flight", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * _SLOTS
        self.seconds = [-1] * _SLOTS
        self.now_in_flight = 0

    def add(self, second: int) -> None:
        slot = second % _SLOTS
        if self.seconds[slot] != second:
            self.seconds[slot], self.counts[slot] = second, 0
        self.counts[slot] += 1

    def sent_since(self, second: int) -> int:
        return sum(count for count, at in zip(self.counts, self.seconds, strict=True) if at > second)


class Inflight:
    """Only the proxy calls `enter` and `leave`, always in pairs. Labels are configured groups and pools that exist.

    `clock` is monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._workers: dict[str, int] = {}
        self._windows: dict[tuple[Group, str], _Window] = {}

    @property
    def workers(self) -> Mapping[str, int]:
        """Requests without an answer, by worker URL; workers without any are absent."""
        return self._workers

    def enter(self, worker: Worker, pool: str) -> None:
        """A request of this pool was sent to this worker."""
        self._workers[worker.url] = self._workers.get(worker.url, 0) + 1
        window = self._windows.get((worker.group, pool))
        if window is None:
            window = self._windows[worker.group, pool] = _Window()
        window.now_in_flight += 1
        window.add(int(self._clock()))

    def leave(self, worker: Worker, pool: str) -> None:
        """That request has its answer, or never will."""
        left = self._workers[worker.url] - 1
        if left:
            self._workers[worker.url] = left
        else:
            del self._workers[worker.url]
        self._windows[worker.group, pool].now_in_flight -= 1

    def forget(self, pools: Container[str]) -> None:
        """Drop what is known of pools that are not among these, once nothing of theirs is on its way."""
        for group, pool in tuple(self._windows):
            if pool != DEFAULT_POOL and pool not in pools and not self._windows[group, pool].now_in_flight:
                del self._windows[group, pool]

    def recent(self) -> Mapping[tuple[Group, str], int]:
        """By group and pool: requests sent in the last 60 s, plus those in flight, sent earlier or since."""
        since = int(self._clock()) - WINDOW_S
        return {key: window.sent_since(since) + window.now_in_flight for key, window in self._windows.items()}

    def sent_per_second(self) -> float:
        """Requests sent to any worker, averaged over the last 60 s."""
        since = int(self._clock()) - WINDOW_S
        return sum(window.sent_since(since) for window in self._windows.values()) / WINDOW_S
