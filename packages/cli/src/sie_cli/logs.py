"""The log files of child processes: their last lines, and their size limit."""

import os
from pathlib import Path

LIMIT_BYTES = 4 * 1024 * 1024
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024


def tail(path: Path, lines: int) -> str:
    """The last lines of a log; empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def log_tail(path: Path, lines: int = TAIL_LINES) -> str:
    """What to show of a log when something went wrong: its last lines, and where all of it is."""
    return f"{tail(path, lines) or '(it wrote nothing)'}\nWhole log: {path}"


def bound(path: Path) -> None:
    """Keep a log below its limit: what it holds moves to `<name>.1`, and the file starts anew.

    The child appends through its own descriptor, so the file is emptied in place; a line written in between is lost.
    """
    if path.exists() and path.stat().st_size > LIMIT_BYTES:
        path.with_name(path.name + ".1").write_bytes(path.read_bytes())
        os.truncate(path, 0)
