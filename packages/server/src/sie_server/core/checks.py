"""What an option may be: a predicate, and the end of the sentence "expected ..."."""

from collections.abc import Callable
from typing import Final

MAX_COUNT: Final = 1_000_000  # of tokens, objects or findings; no model reads or gives more
Check = tuple[Callable[[object], bool], str]


def is_number(value: object) -> bool:
    """True for what YAML and JSON call a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and is_number(value) and 0 <= value <= 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and is_number(value) and 0 <= value <= MAX_COUNT


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and is_number(value) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def one_of(*allowed: object) -> Check:
    """One of a few values, which must also be of the same type: true is not 1."""
    return (
        lambda value: any(type(value) is type(each) and value == each for each in allowed),
        f"one of: {', '.join(map(str, allowed))}",
    )


def positive(of_what: str) -> Check:
    """At least one of something."""
    return (lambda value: _is_count(value) and value != 0, f"a number of {of_what}, 1 or more")


def count(of_what: str) -> Check:
    """A number of something, which may be none."""
    return _is_count, f"a number of {of_what}, 0 to {MAX_COUNT}"


SWITCH: Final[Check] = (_is_switch, "true or false")
SHARE: Final[Check] = (_is_share, "a number from 0 to 1")
SECONDS: Final[Check] = (_is_seconds, "a number of seconds")
TEXT: Final[Check] = (_is_text, "a text")
