"""The task extract: what is in each item."""

from collections.abc import Mapping, Sequence

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import Problem
from sie_protocol.items import ExtractParams, Item
from sie_server.adapters.base import Findings, Labelled
from sie_server.core.extraction import ExtractOptions, check_finite, resolve_extract
from sie_server.core.mentions import mentions_of
from sie_server.core.options import invalid
from sie_server.engine.engine import Engine, Ran
from sie_server.engine.inputs import text_of
from sie_server.engine.loop import Row
from sie_server.engine.results import Cost, Extracted

NOTHING_RAN = Ran((), Cost(queue_s=0.0, tokenization_s=0.0, inference_s=0.0, input_tokens=0, truncated_items=0))


async def extract(engine: Engine, name: str, items: Sequence[Item], params: ExtractParams) -> Extracted:
    """Extract from the items of one request; cancelling it drops what has not started.

    An item that cannot be read has its own refusal in its place; the others are not touched by it.

    Raises:
        Problem: any refusal of an extract call as a whole.
    """
    choice = engine.lookup(name, params.options or {})
    wanted = resolve_extract(choice.model, params)
    if not items:
        raise invalid("items is empty; send at least one item")
    read = [_input(choice.model, at, item, wanted, engine.limits.max_text_chars) for at, item in enumerate(items)]
    inputs = [each for each in read if isinstance(each, Labelled)]
    ran = await engine.run(choice, inputs) if inputs else NOTHING_RAN
    rows = iter(ran.rows)
    found = [each if isinstance(each, Problem) else _findings(next(rows), at) for at, each in enumerate(read)]
    return Extracted(choice.model.sie_id, found, ran.cost)


def _input(model: ModelConfig, at: int, item: Item, wanted: ExtractOptions, max_chars: int) -> Labelled | Problem:
    place = f"item {at}"
    try:
        text = text_of(model, place, item, max_chars)
        mentions = mentions_of(model, place, text, item.get("metadata")) if wanted.reads_entities else ()
    except Problem as problem:
        return problem
    return Labelled(text, wanted.labels, wanted.options, mentions)


def _findings(row: Row, at: int) -> Mapping[str, Findings]:
    found = {kind: output for kind, output in row.items() if isinstance(output, tuple)}
    for findings in found.values():
        check_finite([each.score for each in findings], at)
    return found
