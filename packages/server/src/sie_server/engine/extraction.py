"""The task extract: what is in each item."""

from collections.abc import Mapping, Sequence

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import ExtractParams, Item
from sie_server.adapters.base import Data, Findings, Labelled, LabelledPicture, Picture, UnreadableImageError
from sie_server.core.extraction import ExtractOptions, check_finite, checked_instruction, resolve_extract
from sie_server.core.mentions import mentions_of
from sie_server.core.options import invalid
from sie_server.core.values import check_count
from sie_server.engine.admission import Wants
from sie_server.engine.engine import Engine
from sie_server.engine.inputs import content_of, picture_of
from sie_server.engine.loop import Row
from sie_server.engine.results import Cost, Extracted, Found, total
from sie_server.engine.slots import Choice


async def extract(engine: Engine, name: str, items: Sequence[Item], params: ExtractParams) -> Extracted:
    """Extract from the items of one request; cancelling it drops what has not started.

    An item that cannot be read has its own refusal in its place; the others are not touched by it.

    Raises:
        Problem: any refusal of an extract call as a whole.
    """
    choice = engine.lookup(name, params.options or {})
    wanted = resolve_extract(choice.model, params)
    check_count(len(items), engine.limits.queue.max_items)
    max_chars = engine.limits.max_text_chars
    contents = [_content(choice.model, at, item, wanted, max_chars) for at, item in enumerate(items)]
    found: dict[int, Found] = {at: each for at, each in enumerate(contents) if isinstance(each, Problem)}
    texts = {at: each for at, each in enumerate(contents) if isinstance(each, Labelled)}
    pictures = {at: each for at, each in enumerate(contents) if isinstance(each, LabelledPicture)}
    costs = [
        *(await _from_texts(engine, choice, wanted, texts, found) if texts else ()),
        *(await _from_images(engine, choice, wanted, pictures, found) if pictures else ()),
    ]
    rows = [found[at] for at in range(len(items))]
    return Extracted(choice.model.sie_id, rows, total(costs), wanted.tells_evidence)


async def _from_texts(
    engine: Engine, choice: Choice, wanted: ExtractOptions, texts: Mapping[int, Labelled], found: dict[int, Found]
) -> Sequence[Cost]:
    """Put what is in the texts at their places. One that may not be cut, but would be, is not read, for nothing."""
    async with engine.admitted(choice, list(texts.values()), Wants()) as admitted:
        prepared = dict(zip(texts, admitted.prepared, strict=True))
        if not wanted.may_cut:
            found.update({at: _too_long(choice, at) for at, each in prepared.items() if each.truncated})
        admitted.prepared = [each for at, each in prepared.items() if at not in found]
        rows = await admitted.rows(admitted.prepared) if admitted.prepared else ()
        places = [at for at in texts if at not in found]
        found.update({at: _findings(row, at) for at, row in zip(places, rows, strict=True)})
        return [admitted.cost()]


async def _from_images(
    engine: Engine,
    choice: Choice,
    wanted: ExtractOptions,
    pictures: Mapping[int, LabelledPicture],
    found: dict[int, Found],
) -> Sequence[Cost]:
    """Put what is in the images at their places."""
    read = await engine.run_images(choice, pictures)
    for at, each in read.found.items():
        if isinstance(each, UnreadableImageError):
            found[at] = invalid(f"item {at}: {each}")
        elif each.cost.truncated_items and not wanted.may_cut:
            found[at] = _too_long(choice, at)
        else:
            found[at] = _findings(each.row, at)
    return [read.cost]


def _too_long(choice: Choice, at: int) -> Problem:
    return Problem(
        ErrorCode.INPUT_TOO_LONG,
        f"item {at} is longer than model '{choice.name}' reads; shorten it, or have it cut with "
        "options.overflow_policy: truncate_text",
    )


def _content(
    model: ModelConfig, at: int, item: Item, wanted: ExtractOptions, max_chars: int
) -> Labelled | LabelledPicture | Problem:
    place = f"item {at}"
    try:
        if model.tasks.extract is not None and model.tasks.extract.instruction != "none":
            return _asked(model, place, item, wanted)
        content = content_of(model, place, item, max_chars)
        if isinstance(content, Picture):
            return LabelledPicture(content, wanted.labels, wanted.options)
        mentions = mentions_of(model, place, content, item.get("metadata")) if wanted.reads_entities else ()
    except Problem as problem:
        return problem
    return Labelled(content, wanted.labels, wanted.options, mentions, wanted.schema)


def _asked(model: ModelConfig, place: str, item: Item, wanted: ExtractOptions) -> LabelledPicture:
    """An image with the question about it: the item's own text, or else that of the request."""
    own, task = item.get("text"), model.tasks.extract
    if own is not None and not model.inputs.text:
        raise invalid(f"{place} has a text, but model '{model.sie_id}' reads images only; say it in params.instruction")
    picture = picture_of(model, place, item)
    instruction = wanted.instruction if own is None else checked_instruction(f"the text of {place}", own)
    if task is not None and task.instruction == "required" and not instruction:
        ways = "as its text or for all items in params.instruction" if model.inputs.text else "in params.instruction"
        raise invalid(f"{place} has no question, which model '{model.sie_id}' needs; send it {ways}")
    return LabelledPicture(picture, wanted.labels, wanted.options, instruction, asks_itself=own is not None)


def _findings(row: Row, at: int) -> Mapping[str, Findings | Data]:
    found = {kind: output for kind, output in row.items() if isinstance(output, tuple | Data)}
    for findings in found.values():
        pieces = findings.pieces() if isinstance(findings, Data) else findings
        check_finite([each.score for each in pieces], at)
    return found
