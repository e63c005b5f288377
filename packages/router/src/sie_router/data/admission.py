"""How much the proxy takes on at a time. What does not fit is refused, never queued."""

from sie_protocol.errors import ErrorCode, Problem


class Admission:
    """Counts requests and the body bytes held for them; one event loop, so plain numbers will do."""

    def __init__(self, max_requests: int, max_held_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_held_bytes = max_held_bytes
        self.requests = 0
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """True when a request with a body of this size may come in."""
        return self.requests < self._max_requests and self.held_bytes + size_bytes <= self._max_held_bytes

    def enter(self) -> None:
        """Take one request on.

        Raises:
            Problem: QUEUE_FULL.
        """
        if self.requests >= self._max_requests:
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"this router already carries {self.requests} requests, its limit; try again, or add a router",
            )
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
