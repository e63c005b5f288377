"""The task score: how well each item answers a query."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from sie_protocol.arrays import Array
from sie_protocol.items import Item
from sie_server.adapters.base import Input, Pair, SparseVector
from sie_server.core.scoring import check_candidates, compare, ranked, resolve_score
from sie_server.engine.engine import Engine
from sie_server.engine.inputs import text_of
from sie_server.engine.loop import Row
from sie_server.engine.results import Scored


async def score(
    engine: Engine,
    name: str,
    query: Item,
    items: Sequence[Item],
    instruction: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Scored:
    """Score the items of one request against its query; cancelling it drops what has not started.

    A model without a score task compares vectors, and the query is then one more input of the request.

    Raises:
        Problem: any refusal of a score call.
    """
    choice = engine.lookup(name, options)
    wanted = resolve_score(choice.model, instruction, options)
    check_candidates(len(items))
    limit = engine.limits.max_text_chars
    asked = wanted.query_prompt.apply(text_of(choice.model, "the query", query, limit))
    texts = [
        wanted.document_prompt.apply(text_of(choice.model, f"item {at}", item, limit)) for at, item in enumerate(items)
    ]
    inputs: list[Input] = [Pair(asked, text) for text in texts] if wanted.reads_pairs else [asked, *texts]
    ran = await engine.run(choice, inputs)
    if wanted.reads_pairs:
        scores = [float(_array(row, "score")) for row in ran.rows]
    else:
        first, *rest = (_array(row, "dense") for row in ran.rows)
        scores = await engine.pipeline.run(partial(compare, first, rest, wanted.similarity))
    return Scored(choice.model.sie_id, scores, ranked(scores), ran.cost)


def _array(row: Row, kind: str) -> Array:
    output = row[kind]
    assert not isinstance(output, SparseVector | tuple), f"'{kind}' is dense"  # noqa: S101 - a bug of the adapter
    return output
