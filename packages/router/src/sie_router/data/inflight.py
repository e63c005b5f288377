"""Requests on their way: per worker for routing, per group for the activity signal. The one mutable hot object."""

from collections.abc import Callable, Mapping
from typing import Final

from sie_router.core.fleet import Group, Worker

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
    """Only the proxy calls `enter` and `leave`, always in pairs. Labels are configured groups, so the map is bounded.

    `clock` is monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._workers: dict[str, int] = {}
        self._groups: dict[Group, _Window] = {}

    @property
    def workers(self) -> Mapping[str, int]:
        """Requests without an answer, by worker URL; workers without any are absent."""
        return self._workers

    def enter(self, worker: Worker) -> None:
        """A request was sent to this worker."""
        self._workers[worker.url] = self._workers.get(worker.url, 0) + 1
        window = self._groups.get(worker.group)
        if window is None:
            window = self._groups[worker.group] = _Window()
        window.now_in_flight += 1
        window.add(int(self._clock()))

    def leave(self, worker: Worker) -> None:
        """That request has its answer, or never will."""
        left = self._workers[worker.url] - 1
        if left:
            self._workers[worker.url] = left
        else:
            del self._workers[worker.url]
        self._groups[worker.group].now_in_flight -= 1

    def recent(self, group: Group) -> int:
        """Requests sent to this group in the last 60 s plus those still in flight that were sent earlier or since."""
        window = self._groups.get(group)
        return 0 if window is None else window.sent_since(int(self._clock()) - WINDOW_S) + window.now_in_flight

    def sent_per_second(self) -> float:
        """Requests sent to any worker, averaged over the last 60 s."""
        since = int(self._clock()) - WINDOW_S
        return sum(window.sent_since(since) for window in self._groups.values()) / WINDOW_S
