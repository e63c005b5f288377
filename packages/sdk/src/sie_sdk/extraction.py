"""The endpoint extract as a value; what its arguments mean is told here, what all calls share in `sie_sdk.calls`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sie_protocol.items import (
    Classification,
    DetectedObject,
    Entity,
    ExtractParams,
    ExtractRequest,
    ExtractResult,
    Item,
    ItemError,
    Relation,
    id_of,
)
from sie_sdk import batches
from sie_sdk.answers import incomplete, read
from sie_sdk.calls import inference
from sie_sdk.messages import Answer, OnProgress, Plan, Request
from sie_sdk.retry import Terms

EXTRACT: Final = "extract"


def extract_params(
    labels: Sequence[str] | None,
    output_schema: Mapping[str, Any] | None,
    instruction: str | None,
    options: Mapping[str, Any],
) -> ExtractParams | None:
    """Parameters of an extract call; None when all are the model's defaults.

    Args:
        labels: what to look for, at most 1000; models with labels of their own need none, and tell only those named.
        output_schema: JSON schema of the `data` that a model shall write, in the place of labels; others refuse it.
        instruction: task description for models that read one.
        options: further options of the model, such as `threshold`; `profile` names one of its profiles.
    """
    if isinstance(labels, str):
        raise TypeError(f"labels is a list such as [{labels!r}], not a string")
    params = ExtractParams(
        labels=None if labels is None else list(labels),
        output_schema=None if output_schema is None else dict(output_schema),
        instruction=instruction,
        options=dict(options) or None,
    )
    return None if params == ExtractParams() else params


def extract(
    terms: Terms,
    model: str,
    items: Sequence[Item],
    params: ExtractParams | None,
    on_progress: OnProgress | None = None,
) -> Plan[list[ExtractResult]]:
    """Find what is in each item; one result per item, in order.

    A result holds `entities` (each with `text`, `label`, `score`, and where it stands: `text[start:end]`),
    `classifications` and `objects` (the best first; of an image, each at `bbox` [x, y, width, height] in pixels),
    `relations`, and `data` in the form of the output_schema; what the model does not look for is empty.
    `id` is that of the item, or `item-N` by its place. An item that could not be read has an `error` with `code` and
    `message` instead of findings, and the others have theirs.
    """

    def ask(some: Sequence[Item]) -> Request:
        return extract_request(terms, model, some, params)

    return batches.call(items, terms, ask, _results, on_progress, by_place=True)


def extract_request(terms: Terms, model: str, items: Sequence[Item], params: ExtractParams | None) -> Request:
    """`POST /v1/extract/{model}` with a msgpack body."""
    return inference(terms, EXTRACT, model, ExtractRequest(items=list(items), params=params))


class _Entity(msgspec.Struct, frozen=True):
    text: str
    label: str
    score: float
    start: int | None = None
    end: int | None = None
    bbox: list[float] | None = None


class _Found(msgspec.Struct, frozen=True):
    """One item of an answer; what a server leaves out is empty."""

    id: str | None = None
    entities: list[_Entity] = []
    relations: list[Relation] = []
    classifications: list[Classification] = []
    objects: list[DetectedObject] = []
    data: dict[str, Any] = {}
    error: ItemError | None = None


class _Answer(msgspec.Struct, frozen=True):
    items: list[_Found]


def _results(items: Sequence[Item], answer: Answer) -> list[ExtractResult]:
    found: list[_Found] = read(answer, kind=_Answer, pick=lambda it: it.items)
    if len(found) != len(items):
        raise incomplete(answer, f"{len(found)} results for {len(items)} items")
    names = [id_of(item, at) for at, item in enumerate(items)]
    return [_result(answer, name, each) for name, each in zip(names, found, strict=True)]


def _result(answer: Answer, name: str, found: _Found) -> ExtractResult:
    if found.id is not None and found.id != str(name):
        raise incomplete(answer, f"the result of item '{found.id}' in the place of item '{name}'")
    result: ExtractResult = {
        "id": name,
        "entities": [_entity(each) for each in found.entities],
        "relations": found.relations,
        "classifications": found.classifications,
        "objects": found.objects,
        "data": found.data,
    }
    if found.error is not None:
        result["error"] = found.error
    return result


def _entity(found: _Entity) -> Entity:
    return {
        "text": found.text,
        "label": found.label,
        "score": found.score,
        "start": found.start,
        "end": found.end,
        "bbox": found.bbox,
    }
