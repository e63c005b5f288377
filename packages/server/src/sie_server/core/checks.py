"""What an option may be: a predicate, and how a refusal says it after "expected"."""

from collections.abc import Callable
from typing import Final

MAX_COUNT: Final = 1_000_000  # of tokens, objects or findings; no model reads or gives more
Check = tuple[Callable[[object], bool], str]


def one_of(*allowed: str | int) -> Check:
    """One of a few values; true is not 1."""
    return (
        lambda value: any(type(value) is type(each) and value == each for each in allowed),
        f"one of: {', '.join(map(str, allowed))}",
    )


def whole(of_what: str, least: int, most: int = MAX_COUNT) -> Check:
    """So many of something."""
    return (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
        f"a number of {of_what}, {least} to {most}",
    )


def texts(at_most: int, chars: int) -> Check:
    """A list of texts, each once, none of them empty."""

    def is_right(value: object) -> bool:
        if not isinstance(value, list) or len(value) > at_most:
            return False
        return all(_is_text(each, chars) for each in value) and len(set(value)) == len(value)

    return is_right, f"a list of at most {at_most} texts, each once"


def text(chars: int) -> Check:
    """A text that is not empty."""
    return lambda value: _is_text(value, chars), f"a text of at most {chars} characters that is not empty"


def template(slot: str, chars: int) -> Check:
    """A text with one place for another."""
    return (
        lambda value: isinstance(value, str) and len(value) <= chars and value.count(slot) == 1,
        f"a text with exactly one {slot}, where the label goes",
    )


def _is_text(value: object, chars: int) -> bool:
    return isinstance(value, str) and len(value) <= chars and bool(value.strip())


def _number(most: float, expected: str) -> Check:
    return (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most,
        expected,
    )


SWITCH: Final[Check] = (lambda value: isinstance(value, bool), "true or false")
SHARE: Final = _number(1, "a number from 0 to 1")
SECONDS: Final = _number(3600, "a number of seconds, 0 to 3600")
ANY_TEXT: Final[Check] = (lambda value: isinstance(value, str), "a text")
