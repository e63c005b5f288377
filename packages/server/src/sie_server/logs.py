"""Log lines: text for people, or one JSON object a line for machines."""

import json
import logging
import sys
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class JsonLines(logging.Formatter):
    """`timestamp` (seconds), `level`, `logger`, `message` and, if there is one, `error` with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        line = {
            "timestamp": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, *, as_json: bool) -> None:
    """Send everything from this level on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "filelock", "urllib3"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
