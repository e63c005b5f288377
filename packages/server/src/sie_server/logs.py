"""Where log lines go, and which levels there are."""

import logging
import sys
from typing import Final

from sie_protocol.log_lines import formatter

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def configure(level: str, *, as_json: bool) -> None:
    """Send everything from this level on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(as_json=as_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "filelock", "urllib3"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
