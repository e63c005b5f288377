"""One record for each inference request.

Written past the logging module: a record is made for every request, and a log call would cost more than routing it.
Records of a few milliseconds leave in one write, which costs as much as a record; a process that is killed takes those
of its last few milliseconds with it.
"""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from sie_protocol.log_lines import head
from sie_router.data.outcome import Outcome

LOGGER: Final = "sie_router.audit"
_LOGGER: Final = LOGGER.encode()


class Lines(Protocol):
    """Where records go; a stream of bytes."""

    def write(self, data: bytes, /) -> object:
        """Write bytes."""
        ...

    def flush(self) -> object:
        """Let it out."""
        ...


class AuditLog:
    """Writes outcomes as lines that look like the other log lines. `clock` is Unix time in seconds.

    `later` calls a function once, soon; what it has not called at the end is left to `flush`.
    """

    def __init__(
        self,
        lines: Lines,
        clock: Callable[[], float],
        json_lines: bool,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._lines = lines
        self._clock = clock
        self._is_json = json_lines
        self._later = later
        self._waiting: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self._second = -1
        self._prefix = b""

    def write(self, outcome: Outcome) -> None:
        """Write one record."""
        now = self._clock()
        fields: dict[str, Any] = {
            "event": "inference",
            "method": outcome.method,
            "endpoint": outcome.operation,
            "status": outcome.status,
            "model": outcome.model,
            "pool": outcome.pool,
            "profile": outcome.profile,
            "worker": outcome.worker,
            "retries": outcome.retries,
            "held_ms": round(outcome.parked_s * 1000, 2),
            "latency_ms": round(outcome.latency_s * 1000, 2),
            "body_bytes": outcome.body_bytes,
            "request_id": outcome.request_id,
            "caller": outcome.caller,
        }
        # JSON also in text logs: names come from callers, and a newline in one must not become a line of ours.
        if self._is_json:
            line = b"%b\n" % self._encode(head(now, "INFO", LOGGER, "inference") | fields)
        else:
            line = b"%b INFO %b %b\n" % (self._moment(now), _LOGGER, self._encode(fields))
        if not self._waiting:
            self._later(self.flush)
        self._waiting.append(line)

    def flush(self) -> None:
        """Let out what waits."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._lines.write(data)
        self._lines.flush()

    def _moment(self, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)).encode()
        return b"%b,%03d" % (self._prefix, int((now - second) * 1000))


def no_audit(_: Outcome) -> None:
    """Write nothing: the log level hides records of this kind."""
