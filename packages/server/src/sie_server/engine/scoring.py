"""The task score: how well each item answers a query."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_protocol.items import Item
from sie_server.adapters.base import Data, Pair, SparseVector
from sie_server.core.options import invalid, of_each
from sie_server.core.scoring import ScoreOptions, check_candidates, pieces, ranked, resolve_score
from sie_server.core.similarity import Words, compare, max_sims, sparse_products
from sie_server.engine.admission import Wants
from sie_server.engine.engine import Engine
from sie_server.engine.inputs import inputs_of, text_of
from sie_server.engine.loop import Row
from sie_server.engine.muvera import with_muvera
from sie_server.engine.outputs import joined
from sie_server.engine.results import Cost, Scored
from sie_server.engine.slots import Choice

FLOAT_BYTES: Final = 4
ENCODING_COPIES: Final = 3  # what a fixed-dimensional encoding takes while it is compared: itself, and in double width


async def score(
    engine: Engine,
    name: str,
    query: Item,
    items: Sequence[Item],
    instruction: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Scored:
    """Score the items of one request against its query; cancelling it drops what has not started.

    A model without a score task compares vectors, and the query is then one more input of the request: a text, or an
    image if the model reads images. Items may be either, as they are to encode.

    Raises:
        Problem: any refusal of a score call.
    """
    choice = engine.lookup(name, options)
    wanted = resolve_score(choice.model, instruction, options)
    check_candidates(len(items))
    score_items = _by_pairs if wanted.reads_pairs else _by_vectors
    scores, cost = await score_items(engine, choice, wanted, query, items)
    return Scored(choice.model.sie_id, scores, ranked(scores), cost)


async def _by_pairs(
    engine: Engine, choice: Choice, wanted: ScoreOptions, query: Item, items: Sequence[Item]
) -> tuple[list[float], Cost]:
    model, limit = choice.model, engine.limits.max_text_chars
    asked = wanted.query_prompt.apply(text_of(model, "the query", query, limit))
    texts = of_each(items, lambda place, item: wanted.document_prompt.apply(text_of(model, place, item, limit)))
    ran = await engine.run(choice, [Pair(asked, text) for text in texts], wants=Wants(may_cut=wanted.may_cut))
    return [float(_array(row, "score")) for row in ran.rows], ran.cost


async def _by_vectors(
    engine: Engine, choice: Choice, wanted: ScoreOptions, query: Item, items: Sequence[Item]
) -> tuple[list[float], Cost]:
    """Piece by piece of the items, so that vectors of no more than one piece exist at a time."""
    model, limit = choice.model, engine.limits.max_text_chars
    asked = inputs_of(model, "the query", query, wanted.query_prompt, limit)
    if len(asked) > 1:
        raise invalid(f"the query has {len(asked)} images; send one, and other images as queries of their own")
    prompt = wanted.document_prompt
    inputs = of_each(items, lambda place, item: inputs_of(model, place, item, prompt, limit))
    counts = [len(of_item) for of_item in inputs]
    wants = Wants(wanted.computed, wanted.may_cut, counts)
    width = model.dims["multivector"] if "multivector" in wanted.computed else 1
    of_item = ENCODING_COPIES * wanted.muvera.dims if wanted.muvera else 0
    first: Row | None = None
    scores: list[float] = []
    spent_s = 0.0
    async with engine.admitted(choice, list(chain.from_iterable(inputs)), wants, query=asked[0]) as admitted:
        parts = [1, *counts]  # of the query and of each item
        ends = list(accumulate(parts, initial=0))
        tokens = [each.tokens for each in admitted.prepared]
        sizes = [FLOAT_BYTES * (sum(tokens[start:end]) * width + of_item) for start, end in pairwise(ends)]
        for piece in pieces(sizes, engine.limits.score_vector_bytes):
            own = await admitted.rows(admitted.prepared[ends[piece.start] : ends[piece.stop]])
            rows = joined(own, parts[piece])
            if first is None:
                first, rows = rows[0], rows[1:]
            if rows:
                found, took_s = await engine.pipeline.timed(partial(similarities, first, rows, wanted))
                scores += found
                spent_s += took_s
        return scores, replace(admitted.cost(), postprocessing_s=spent_s)


def similarities(query: Row, documents: Sequence[Row], wanted: ScoreOptions) -> list[float]:
    """How alike the query and each document are, over all outputs that count."""
    (query,) = with_muvera([query], wanted.muvera, is_query=True)
    documents = with_muvera(documents, wanted.muvera, is_query=False)
    total = np.zeros(len(documents))
    for kind, weight in wanted.weights.items():
        total += weight * _similarities(kind, query, documents, wanted)
    scores: list[float] = total.tolist()
    return scores


def _similarities(kind: str, query: Row, documents: Sequence[Row], wanted: ScoreOptions) -> Array:
    if kind == "sparse":
        return sparse_products(_words(query), [_words(row) for row in documents])
    own, others = _array(query, kind), [_array(row, kind) for row in documents]
    if kind == "dense":
        return compare(own, others, wanted.similarity)
    return max_sims(own, others) / (max(1, len(own)) if wanted.is_hybrid else 1)


def _words(row: Row) -> Words:
    output = row["sparse"]
    assert isinstance(output, SparseVector), "'sparse' is sparse"  # noqa: S101 - a bug of the adapter
    return output.indices, output.values


def _array(row: Row, kind: str) -> Array:
    output = row[kind]
    assert not isinstance(output, SparseVector | tuple | Data), f"'{kind}' is dense"  # noqa: S101 - a bug of the adapter
    return output
