"""A table that a script writes into a page between two marks, and `--check` compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table stands: the page, and the lines before and behind it."""

    page: Path
    start: str
    end: str

    def renewed(self, text: str, table: str) -> str:
        """The page's text with its table renewed.

        Raises:
            ValueError: the page has no place for it.
        """
        before, start, rest = text.partition(self.start)
        _, end, after = rest.partition(self.end)
        if not start or not end:
            raise ValueError(f"the page lacks {self.start.strip()} or {self.end.strip()}")
        return before + start + table + end + after

    def write_or_check(self, table: str, arguments: Sequence[str], complaint: str) -> int:
        """Write the table, or with `--check` compare; 1, and the complaint, when they differ."""
        own = self.page.read_text()
        wanted = self.renewed(own, table)
        if "--check" not in arguments:
            self.page.write_text(wanted)
        elif own != wanted:
            print(complaint)
            return 1
        return 0
