"""How much the proxy takes on at a time, and of whom. What does not fit is refused, never queued."""

from typing import Final

from sie_protocol.errors import ErrorCode, Problem
from sie_router.core.pools import Caller
from sie_router.core.rate import Rate, taken, wait_s

LEAST_DUE: Final = 1024  # callers that are remembered before anybody looks who may be forgotten


class Admission:
    """Counts requests, the body bytes held for them and, with a `rate`, how often each caller asks.

    One event loop, so plain numbers will do. Callers are remembered whose number is ahead of the clock, and at most as
    many others, or `least_due`.
    """

    def __init__(
        self, max_requests: int, max_held_bytes: int, rate: Rate | None = None, *, least_due: int = LEAST_DUE
    ) -> None:
        self._max_requests = max_requests
        self._max_held_bytes = max_held_bytes
        self._rate = rate
        self._due: dict[str, float] = {}
        self._least_due = self._most_due = least_due
        self.requests = 0
        self.held_bytes = 0

    @property
    def callers(self) -> int:
        """How many are remembered."""
        return len(self._due)

    def has_room(self, size_bytes: int, caller: Caller, now: float) -> bool:
        """True when a request of this caller with a body of this size may come in."""
        fits = self.requests < self._max_requests and self.held_bytes + size_bytes <= self._max_held_bytes
        return fits and self._wait_s(caller, now) == 0

    def enter(self, caller: Caller, now: float) -> None:
        """Take one request on.

        Raises:
            Problem: RATE_LIMITED, QUEUE_FULL.
        """
        if self.requests >= self._max_requests:
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"this router already carries {self.requests} requests, its limit; try again, or add a router",
            )
        self._count(caller, now)
        self.requests += 1

    def hold(self, size_bytes: int) -> None:
        """Keep this many more bytes of a body in memory.

        Raises:
            Problem: QUEUE_FULL.
        """
        if self.held_bytes + size_bytes > self._max_held_bytes:
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"this router already holds {self.held_bytes} bytes of requests, its limit is {self._max_held_bytes}; "
                "try again, or add a router",
            )
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """These bytes are not held any more."""
        self.held_bytes -= size_bytes

    def leave(self) -> None:
        """One request is over."""
        self.requests -= 1

    def _wait_s(self, caller: Caller, now: float) -> float:
        return 0.0 if self._rate is None else wait_s(self._due.get(caller.id, now), now, self._rate)

    def _count(self, caller: Caller, now: float) -> None:
        rate, left_s = self._rate, self._wait_s(caller, now)
        if rate is None:
            return
        if left_s > 0:
            raise Problem(
                ErrorCode.RATE_LIMITED,
                f"this router takes {rate.per_s:g} requests a second of one caller, and {rate.burst} at once; "
                f"ask again in {left_s:.3g} s, or send more items in one request",
                retry_after_s=left_s,
            )
        self._due[caller.id] = taken(self._due.get(caller.id, now), now, rate)
        if len(self._due) > self._most_due:
            self._due = {each: due for each, due in self._due.items() if due > now}  # the others are as if new
            self._most_due = max(self._least_due, 2 * len(self._due))
