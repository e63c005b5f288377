"""How many requests may be sent again: a share of all requests, so that an outage is not answered by a storm."""

from typing import Final

SHARE: Final = 0.1  # of a retry, earned by each request
FLOOR_PER_S: Final = 1.0  # earned by nothing, so that a router with little traffic can retry as well
FLOOR: Final = 10.0  # what is earned by nothing ends here
MOST: Final = 100.0  # what is earned by requests ends here: retries are paid by recent ones


class RetryBudget:
    """A token bucket. Only the forwarder writes it. `now` is monotonic time in seconds.

    In any span of time there are at most `MOST + SHARE * requests + FLOOR_PER_S * seconds` retries. `taken` and
    `refused` count what it was asked.
    """

    __slots__ = ("_at", "_tokens", "refused", "taken")

    def __init__(self, now: float) -> None:
        self._tokens = FLOOR
        self._at = now
        self.refused = 0
        self.taken = 0

    def earn(self) -> None:
        """A request came."""
        if self._tokens < MOST:  # each request comes here
            self._tokens += SHARE

    def take(self, now: float) -> bool:
        """True when a request may be sent once more."""
        if self._tokens < FLOOR:
            self._tokens = min(FLOOR, self._tokens + FLOOR_PER_S * max(0.0, now - self._at))
        self._at = now
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        self.taken += 1
        return True
