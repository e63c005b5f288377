"""Which metrics and labels a PromQL expression names: enough of the grammar for queries that are written by us."""

import re
from dataclasses import dataclass
from typing import Final

STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTOR: Final = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
WORD: Final = re.compile(r"\b[a-z_]\w*\b(?!\s*\()", re.IGNORECASE)
KEYWORDS: Final = frozenset({"and", "or", "unless", "by", "on", "bool", "offset", "without"})


@dataclass(frozen=True, slots=True)
class Names:
    """`selected`: metrics with the labels that select them; `grouped`: labels of by() and on(); `bare`: the rest."""

    selected: tuple[tuple[str, frozenset[str]], ...]
    grouped: frozenset[str]
    bare: frozenset[str]


def names(expression: str) -> Names:
    """What this expression names."""
    text = STRING.sub('""', expression)
    selected = tuple((metric, frozenset(LABEL.findall(inside))) for metric, inside in SELECTOR.findall(text))
    grouped = frozenset(label.strip() for inside in GROUPING.findall(text) for label in inside.split(",") if label)
    rest = re.sub(r"\[[^\]]*\]", "", GROUPING.sub(" ", SELECTOR.sub(" ", text)))
    return Names(selected, grouped, frozenset(WORD.findall(rest)) - KEYWORDS)
