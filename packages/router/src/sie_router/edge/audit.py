"""One record for each inference request."""

import logging
from typing import Any, Final

import msgspec

from sie_router.data.outcome import Outcome

LOGGER: Final = "sie_router.audit"


class _Line:
    """A message that is put into words only by a formatter that needs words.

    JSON also in text logs: names come from callers, and a newline in one must not become a line of ours.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return msgspec.json.encode(self._fields).decode()


class Audit:
    """Writes outcomes to the logger `sie_router.audit` at INFO."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(LOGGER)

    def write(self, outcome: Outcome) -> None:
        """Write one record. Builds it by hand: looking up who called costs more than all the rest of a log call."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {
            "event": "inference",
            "method": outcome.method,
            "endpoint": outcome.operation,
            "status": outcome.status,
            "model": outcome.model,
            "pool": outcome.pool,
            "profile": outcome.profile,
            "worker": outcome.worker,
            "latency_ms": round(outcome.latency_s * 1000, 2),
            "body_bytes": outcome.body_bytes,
            "request_id": outcome.request_id,
        }
        record = logging.LogRecord(LOGGER, logging.INFO, "", 0, _Line(fields), None, None)
        record.fields = fields
        self._logger.handle(record)
