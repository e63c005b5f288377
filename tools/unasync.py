"""Generate the blocking client of the SDK from the asyncio one: `unasync.py` writes it, `unasync.py --check` compares.

The source is text for people, so the translation is a table of words that also holds in docstrings. A row that matches
nothing is an error: it was needed once, and either the source or the table is now wrong.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SDK: Final = Path(__file__).resolve().parent.parent / "packages/sdk/src/sie_sdk"
SOURCE: Final = SDK / "_async/client.py"
TARGET: Final = SDK / "_sync/client.py"
BANNER: Final = "# Generated from _async/client.py by tools/unasync.py. Edit that file, then run `make format`.\n\n"

TABLE: Final[Mapping[str, str]] = {
    r"\basync def\b": "def",
    r"\basync with\b": "with",
    r"\bawait ": "",
    r"\b__aenter__\b": "__enter__",
    r"\b__aexit__\b": "__exit__",
    r"\basync for\b": "for",
    r"\baclosing\b": "closing",
    r"\bAsyncGenerator\b": "Generator",
    r"\bdriver_async\b": "driver_sync",
    r"\bAsyncLink\b": "Link",
    r"\bAsyncClient\b": "Client",
    r"\badrive\b": "drive",
    r"\bSIEAsyncClient\b": "SIEClient",
    r"tasks of one event loop": "threads",
}
LEFTOVER: Final = re.compile(r"\b(?:async|await|asyncio|a(?:enter|exit|close))\b|Async")


def translate(source: str, table: Mapping[str, str]) -> str:
    """The blocking form of the source.

    Raises:
        ValueError: a row of the table matches nothing, or something asynchronous is left.
    """
    for pattern, replacement in table.items():
        source, matches = re.subn(pattern, replacement, source)
        if not matches:
            raise ValueError(f"the row {pattern!r} of tools/unasync.py matches nothing in the source; remove it")
    if found := LEFTOVER.search(source):
        line = source.count("\n", 0, found.start()) + 1
        raise ValueError(f"line {line} still says '{found[0]}'; add a row to the table of tools/unasync.py")
    return BANNER + source


def formatted(text: str) -> str:
    """The text as `ruff format` would leave it."""
    ruff = Path(sys.executable).with_name("ruff")
    # Under the source's name, because generated files are excluded from formatting.
    command = [str(ruff), "format", "--quiet", "--stdin-filename", str(SOURCE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=SDK).stdout


def generate() -> str:
    """What the target should hold."""
    return formatted(translate(SOURCE.read_text(encoding="utf-8"), TABLE))


def main(arguments: list[str]) -> int:
    """Write the target, or with `--check` only compare; returns the exit status."""
    try:
        wanted = generate()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    found = TARGET.read_text(encoding="utf-8") if TARGET.exists() else None
    if found == wanted:
        return 0
    if arguments == ["--check"]:
        print(f"{TARGET.name} is not what {SOURCE} gives; run `make format`", file=sys.stderr)
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
