"""Any number of real English lines: what installed Python modules say about themselves."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SHORTEST = 20  # characters; less is a heading or a rule


def real_lines(count: int) -> list[str]:
    """The first different lines of docstrings, the standard library's before those of installed packages."""
    found: dict[str, None] = {}
    for line in _lines():
        found[line] = None
        if len(found) == count:
            return list(found)
    raise AssertionError(f"only {len(found)} different lines in the docstrings here")


def _lines() -> Iterator[str]:
    for folder in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(folder)).rglob("*.py")):
            if folder == "stdlib" and "site-packages" in path.parts:
                continue
            yield from (line for text in _docstrings(path) for line in _sentences(text))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _sentences(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if len(line.strip()) >= SHORTEST:
            yield line.strip()
