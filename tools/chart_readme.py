"""The chart's README.md: `chart_readme.py` writes the table of values from values.yaml, `--check` compares.

A value's comment stands behind it on its line; what has values below it is a heading, and its comment a sentence.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from generated_table import Place

CHART: Final = Path(__file__).resolve().parent.parent / "deploy/helm/sie-cluster"
PLACE: Final = Place(
    CHART / "README.md", "<!-- values: written by tools/chart_readme.py -->\n", "<!-- end of values -->\n"
)
LINE: Final = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+):(?: (?P<value>[^# ].*?))?(?: +# (?P<comment>.*))?$")
EXAMPLE: Final = "workers.pools.l4"  # the pool whose keys are explained; the others only have other numbers


def values(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Path, default and comment of each value that has no values below it.

    Raises:
        ValueError: one has no comment.
    """
    path: list[str] = []
    for line in lines:
        found = LINE.match(line.rstrip())
        if not found or line.lstrip().startswith(("#", "-")):
            continue
        depth = len(found["indent"]) // 2
        path = [*path[:depth], found["key"]]
        name, value, comment = ".".join(path), found["value"] or "", found["comment"] or ""
        if name.startswith("workers.pools.") and not name.startswith(EXAMPLE):
            continue
        if value and not comment:
            raise ValueError(f"{name} in values.yaml lacks a comment behind it")
        if value:
            yield name, value, comment


def table(lines: Iterable[str]) -> str:
    """One row a value."""
    rows = [f"| `{name}` | {f'`{value}`' if value else ''} | {comment} |" for name, value, comment in values(lines)]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows]) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 1 when they differ."""
    complaint = "the chart's README.md is not its values.yaml's; run tools/chart_readme.py"
    return PLACE.write_or_check(table((CHART / "values.yaml").read_text().splitlines()), arguments, complaint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
