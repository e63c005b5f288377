"""Requests that are parked until a worker can serve them. Woken by changes of the fleet; never polls."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sie_router.core.fleet import Fleet, Index
from sie_router.core.route import Ask, serving_workers
from sie_router.core.slow_start import releasable, release_at_s


@dataclass(slots=True)
class Queue:
    """Requests that wait for the same, in order; each with the index in whose light nobody could serve it.

    The slow start began at `opened_at` (None: nobody can serve them) and has let `released` of them go on.
    """

    waiters: dict[asyncio.Future[None], Index] = field(default_factory=dict)
    opened_at: float | None = None
    released: int = 0
    timer: asyncio.TimerHandle | None = None


class ParkedRequests:
    """Bounded in requests and bytes; full, or closed, it takes no more. `clock` is monotonic time in seconds.

    `ended` counts requests by how their wait ended: `served`, `expired`, `gone` with their client, or `full`: no room.
    """

    def __init__(
        self, snapshot: Callable[[], Fleet], clock: Callable[[], float], *, max_requests: int, max_bytes: int
    ) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._queues: dict[Ask, Queue] = {}
        self._seen: tuple[object, object] = (None, None)
        self._is_closed = False
        self.requests = 0
        self.held_bytes = 0
        self.ended = {"served": 0, "expired": 0, "full": 0, "gone": 0}

    def has_room(self, size_bytes: int) -> bool:
        """True when one more request of this size would be let in."""
        has_bytes = self.held_bytes + size_bytes <= self._max_bytes
        return not self._is_closed and self.requests < self._max_requests and has_bytes

    @contextmanager
    def slot(self, size_bytes: int) -> Iterator[bool]:
        """A slot for one request of this size; False when there is none."""
        if not self.has_room(size_bytes):
            self.ended["full"] += 1
            yield False
            return
        self.requests += 1
        self.held_bytes += size_bytes
        try:
            yield True
        except asyncio.CancelledError:
            self.ended["gone"] += 1
            raise
        finally:
            self.requests -= 1
            self.held_bytes -= size_bytes

    async def wait(self, ask: Ask, seen: Index, until: float) -> bool:
        """Wait for another try to be worth it; False when the time is over, or after `close`.

        `seen` is the index in whose light the last try failed: only a later one is a reason for another.
        """
        if self._is_closed:
            return False
        queue = self._queues.setdefault(ask, Queue())
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiters[waiter] = seen
        self._release(ask, queue)
        goes_on = False
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await waiter
            goes_on = True
        except TimeoutError:
            return False
        finally:
            queue.waiters.pop(waiter, None)
            if not queue.waiters:
                self._drop(ask, queue)
            elif waiter.done() and not waiter.cancelled() and not goes_on:  # woken, and left in the same moment
                self._renew_demand(queue)
        return not self._is_closed

    def fleet_changed(self) -> None:
        """Look again, if anything has changed that decides who can serve."""
        fleet = self._snapshot()
        now = (fleet.index, fleet.models)
        if now[0] is self._seen[0] and now[1] is self._seen[1]:
            return
        self._seen = now
        for ask, queue in tuple(self._queues.items()):
            self._release(ask, queue)

    def close(self) -> None:
        """Send everybody away with what they would have heard at once; let nobody in."""
        self._is_closed = True
        for queue in self._queues.values():
            for waiter in queue.waiters:
                _wake(waiter)

    def _release(self, ask: Ask, queue: Queue) -> None:
        fleet, now = self._snapshot(), self._clock()
        workers = serving_workers(fleet, ask)
        if not workers:
            self._pause(queue)
            return
        if queue.opened_at is None:
            queue.opened_at, queue.released = now, 0
        left = releasable(now - queue.opened_at, workers) - queue.released
        for waiter, seen in tuple(queue.waiters.items()):
            if seen is fleet.index or waiter.done():
                continue
            if left <= 0:
                self._release_later(ask, queue, queue.opened_at + release_at_s(queue.released, workers) - now)
                return
            left -= 1
            queue.released += 1
            _wake(waiter)

    def _pause(self, queue: Queue) -> None:
        if queue.opened_at is None:
            return
        queue.opened_at = None
        self._renew_demand(queue)

    def _renew_demand(self, queue: Queue) -> None:
        """A worker came and went, and its coming ended the demand: have one of those who still wait renew it."""
        if queue.opened_at is not None:
            return
        first = next((waiter for waiter in queue.waiters if not waiter.done()), None)
        if first is not None:
            _wake(first)

    def _release_later(self, ask: Ask, queue: Queue, in_s: float) -> None:
        if queue.timer is not None:
            queue.timer.cancel()
        queue.timer = asyncio.get_running_loop().call_later(max(in_s, 0.001), self._release, ask, queue)

    def _drop(self, ask: Ask, queue: Queue) -> None:
        if queue.timer is not None:
            queue.timer.cancel()
        if self._queues.get(ask) is queue:
            del self._queues[ask]


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
