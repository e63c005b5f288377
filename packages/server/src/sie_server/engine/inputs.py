"""From a user's item to what a model reads, within the worker's limits."""

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import Item


def text_of(model: ModelConfig, place: str, item: Item, max_chars: int) -> str:
    """The text of an item; `place` says in a refusal which item it was.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    text = item.get("text")
    if item.get("images"):
        message = f"{place} has images, but model '{model.sie_id}' reads text only"
        raise Problem(ErrorCode.INVALID_INPUT, message)
    if text is None:
        raise Problem(ErrorCode.INVALID_INPUT, f"{place} has no text, which model '{model.sie_id}' needs")
    if len(text) > max_chars:
        message = f"the text of {place} has {len(text)} characters, the limit is {max_chars}"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)
    return text
