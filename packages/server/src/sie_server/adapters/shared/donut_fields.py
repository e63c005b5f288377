"""The fields of a document as Donut writes them, `<s_total>9.00</s_total>`, as plain values: nested dicts and lists.

They are what transformers' `token2json` makes of the same text, up to a depth.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

DEEPEST: Final = 50  # documents have three or four levels; a model that fails writes as many as fit
SEPARATOR: Final = "<sep/>"
ALL: Final = "text_sequence"  # where a text without fields goes, as transformers calls it
SEVERAL: Final = "items"  # where several sets of fields go that nothing stands around
_OPENING: Final = re.compile(r"<s_([^>]*)>", re.IGNORECASE)


def fields_of(text: str, categories: Collection[str]) -> dict[str, Any]:
    """What a text says; `categories` are marks that stand for a value, `<invoice/>`."""
    found = _fields(text, categories, DEEPEST)
    if isinstance(found, str):
        return {ALL: found}
    return found[0] if len(found) == 1 and not isinstance(found[0], str) else {SEVERAL: found}


def leaves(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """All values in the order of the text, each with the names that lead to it, `menu.nm`."""
    for name, value in fields.items():
        own = f"{path}.{name}" if path else name
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from leaves(each, own)
            elif isinstance(each, str) and each:
                yield own, each


def _fields(text: str, categories: Collection[str], depth: int) -> list[Any] | str:
    """Sets of fields, one behind the other; or what is left of a text without any."""
    sets: list[Any] = []
    fields: dict[str, Any] = {}
    while text:
        opening = _OPENING.search(text)
        if opening is None:
            break
        closing = re.search(f"</s_{re.escape(opening[1])}>", text, re.IGNORECASE)
        if closing is None:
            text = text.replace(opening[0], "")
            continue
        content = re.search(f"{re.escape(opening[0])}(.*?){re.escape(closing[0])}", text, re.IGNORECASE | re.DOTALL)
        if content is not None:
            _put(fields, opening[1], content[1].strip(), categories, depth)
        text = text[text.find(closing[0]) + len(closing[0]) :].strip()
        if text.startswith(SEPARATOR):
            text = text[len(SEPARATOR) :]
            sets.append(fields)
            fields = {}
            if not text:
                return sets
    if fields:
        return [*sets, fields]
    return sets or text


def _put(fields: dict[str, Any], name: str, content: str, categories: Collection[str], depth: int) -> None:
    if "<s_" in content and "</s_" in content and depth:
        inner = _fields(content, categories, depth - 1)
        if inner and not isinstance(inner, str):
            fields[name] = inner[0] if len(inner) == 1 else inner
        return
    values = [_value(each.strip(), categories) for each in content.split(SEPARATOR)]
    fields[name] = values[0] if len(values) == 1 else values


def _value(text: str, categories: Collection[str]) -> str:
    is_category = text in categories and text[0] == "<" and text[-2:] == "/>"
    return text[1:-2] if is_category else text
