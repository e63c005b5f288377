"""Entities that callers name in `metadata.entities`, for models that find out what these have to do with each other."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeGuard

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_server.core.options import invalid, shown

# Every pair of them is looked at in both directions.
MAX_MENTIONS: Final = 256
FORM: Final = "a list of {start, end, text?, label?} with places in characters (Unicode code points)"


class Mention(NamedTuple):
    """A piece of a text that the caller knows to be something: `text[start:end]`, in characters."""

    start: int
    end: int


def mentions_of(model: ModelConfig, place: str, text: str, metadata: Mapping[str, Any] | None) -> tuple[Mention, ...]:
    """The entities of one item, each piece of the text once, in the caller's order; `place` names the item.

    Raises:
        Problem: INVALID_INPUT when there is no list of entities, or one of them is not a piece of the text;
            INPUT_TOO_LONG when there are too many.
    """
    entities = (metadata or {}).get("entities")
    if not isinstance(entities, list):
        raise invalid(
            f"{place} has no metadata.entities, between which model '{model.sie_id}' finds relations; send {FORM}"
        )
    if len(entities) > MAX_MENTIONS:
        message = f"{place} has {len(entities)} entities, the limit is {MAX_MENTIONS}; send its text in parts"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)
    mentions = [_mention(f"metadata.entities[{at}] of {place}", text, each) for at, each in enumerate(entities)]
    return tuple(dict.fromkeys(mentions))


def _mention(place: str, text: str, entity: object) -> Mention:
    known = entity if isinstance(entity, Mapping) else {}
    start, end = known.get("start"), known.get("end")
    if not (_is_place(start) and _is_place(end)):
        raise invalid(f"{place} is {shown(entity)}; expected {FORM}")
    if not start < end <= len(text):
        raise invalid(f"{place} goes from {start} to {end}, which is no piece of a text of {len(text)} characters")
    piece, named = text[start:end], known.get("text")
    if not piece.strip():
        raise invalid(f"{place} goes from {start} to {end}, where the text has nothing but spaces")
    if named is not None and named != piece:
        raise invalid(f"{place} is said to be {named!r:.100}, but from {start} to {end} the text has {piece!r:.100}")
    return Mention(start, end)


def _is_place(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
