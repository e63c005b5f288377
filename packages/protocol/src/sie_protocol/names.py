"""What a caller who names something that is not there may have meant."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MAX_CHARS: Final = 100  # comparing takes time with the square of the length
MAX_KEPT: Final = 256  # answers: a client tries again what it misspelt, and comparing takes up to 10 ms
MAX_NAMES: Final = 3
LIKENESS: Final = 0.7  # of 1; below, two ids of one publisher are taken for each other


def alike(name: str, known: Iterable[str]) -> list[str]:
    """The names most like one, the likest first; one without its publisher (`all-MiniLM-L6-v2`) is that model."""
    by_spelling = {each.lower(): each for each in known}
    wanted = name.lower().strip("/")
    same = [each for lowered, each in by_spelling.items() if lowered.rpartition("/")[2] == wanted]
    if same or len(wanted) > MAX_CHARS:
        return same[:MAX_NAMES]
    return [by_spelling[each] for each in _closest(wanted, tuple(by_spelling))]


@lru_cache(MAX_KEPT)
def _closest(wanted: str, known: tuple[str, ...]) -> tuple[str, ...]:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    return tuple(difflib.get_close_matches(wanted, known, MAX_NAMES, LIKENESS))


def suggestion(name: str, known: Iterable[str]) -> str:
    """The same as the end of a refusal; empty when nothing is alike."""
    found = alike(name, known)
    return f"; did you mean {' or '.join(found)}?" if found else ""
