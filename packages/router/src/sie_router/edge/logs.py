"""Where log lines go."""

import logging

from sie_protocol.log_lines import formatter


def configure(level: str, *, json_lines: bool) -> None:
    """Send everything of this process to standard error. Called once, by the command line."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(as_json=json_lines))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
