"""From a user's item to what a model reads, within the worker's limits."""

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import Item
from sie_server.adapters.base import Input, Picture
from sie_server.core.options import Prompt, invalid

MAX_IMAGES = 64  # of one item


def inputs_of(model: ModelConfig, place: str, item: Item, prompt: Prompt, max_chars: int) -> list[Input]:
    """An item's text in the prompt, or each of its images; `place` says in a refusal which item it was.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    if not item.get("images"):
        return [prompt.apply(text_of(model, place, item, max_chars))]
    pictures = _pictures(model, place, item)
    _check_only_images(place, item)
    return [*pictures]


def content_of(model: ModelConfig, place: str, item: Item, max_chars: int) -> str | Picture:
    """An item's text or its image: what is found belongs to one of them, so there is exactly one.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    if not item.get("images"):
        return text_of(model, place, item, max_chars)
    picture = picture_of(model, place, item)
    _check_only_images(place, item)
    return picture


def picture_of(model: ModelConfig, place: str, item: Item) -> Picture:
    """An item's one image.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    if not item.get("images"):
        raise invalid(f"{place} has no images, which model '{model.sie_id}' needs")
    picture, *more = _pictures(model, place, item)
    if more:
        raise invalid(
            f"{place} has {len(more) + 1} images; send each as an item of its own, so that it is known in which one "
            "something was found"
        )
    return picture


def text_of(model: ModelConfig, place: str, item: Item, max_chars: int) -> str:
    """The text of an item; `place` says in a refusal which item it was.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    text = item.get("text")
    if item.get("images"):
        raise invalid(f"{place} has images, but model '{model.sie_id}' reads text only here")
    if text is None:
        kinds = (("text", model.inputs.text), ("images", model.inputs.image))
        wanted = " or ".join(kind for kind, is_read in kinds if is_read)
        raise invalid(f"{place} has no {wanted}, which model '{model.sie_id}' needs")
    if not model.inputs.text:
        raise invalid(f"{place} has a text, but model '{model.sie_id}' reads images only")
    if len(text) > max_chars:
        message = f"the text of {place} has {len(text)} characters, the limit is {max_chars}"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)
    return text


def _check_only_images(place: str, item: Item) -> None:
    if item.get("text") is not None:
        raise invalid(f"{place} has both a text and images; send them as two items, each gets a result of its own")


def _pictures(model: ModelConfig, place: str, item: Item) -> list[Picture]:
    images = item.get("images") or []
    if not model.inputs.image:
        raise invalid(f"{place} has images, but model '{model.sie_id}' reads text only")
    if len(images) > MAX_IMAGES:
        message = f"{place} has {len(images)} images, the limit is {MAX_IMAGES}; send them as several items"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)
    return [Picture(image["data"]) for image in images]
