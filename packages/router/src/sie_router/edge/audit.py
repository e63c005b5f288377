"""One record for each inference request.

Written past the logging module: a record is made for every request, and a log call would cost more than routing it.
"""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from sie_router.data.outcome import Outcome

LOGGER: Final = "sie_router.audit"


class Lines(Protocol):
    """Where records go; a text stream."""

    def write(self, text: str, /) -> object:
        """Write text."""
        ...

    def flush(self) -> object:
        """Let it out."""
        ...


class AuditLog:
    """Writes outcomes as lines that look like the other log lines. `clock` is Unix time in seconds."""

    def __init__(self, lines: Lines, clock: Callable[[], float], json_lines: bool) -> None:
        self._lines = lines
        self._clock = clock
        self._is_json = json_lines
        self._second = -1
        self._prefix = ""

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
            "held_ms": round(outcome.held_s * 1000, 2),
            "latency_ms": round(outcome.latency_s * 1000, 2),
            "body_bytes": outcome.body_bytes,
            "request_id": outcome.request_id,
            "caller": outcome.caller,
        }
        # JSON also in text logs: names come from callers, and a newline in one must not become a line of ours.
        if self._is_json:
            head = {"timestamp": now, "level": "INFO", "logger": LOGGER, "message": "inference"}
            line = msgspec.json.encode(head | fields).decode() + "\n"
        else:
            line = f"{self._moment(now)} INFO {LOGGER} {msgspec.json.encode(fields).decode()}\n"
        self._lines.write(line)
        self._lines.flush()

    def _moment(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._prefix},{int((now - second) * 1000):03d}"


def no_audit(_: Outcome) -> None:
    """Write nothing: the log level hides records of this kind."""
