"""Log lines of routers and workers: text for people, or one JSON object a line with the same keys for machines."""

import logging
from typing import Any, Final

import msgspec

TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def formatter(*, as_json: bool) -> logging.Formatter:
    """What a process's handler writes its records with."""
    return JsonLines() if as_json else logging.Formatter(TEXT)


def head(timestamp: float, level: str, logger: str, message: str) -> dict[str, Any]:
    """The keys that every JSON line begins with; `timestamp` is Unix time in seconds, `level` in capitals."""
    return {"timestamp": timestamp, "level": level, "logger": logger, "message": message}


class JsonLines(logging.Formatter):
    """One JSON object a line: what `head` says and, if there is an exception, `exception` with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        line = head(record.created, record.levelname, record.name, record.getMessage())
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
