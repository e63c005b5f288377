"""The task encode: items to vectors."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, Item
from sie_server.adapters.base import Data, Prepared, Vector
from sie_server.core.options import EncodeOptions, of_each, resolve_encode
from sie_server.core.values import check_count
from sie_server.engine.admission import Wants
from sie_server.engine.engine import Engine
from sie_server.engine.inputs import inputs_of
from sie_server.engine.loop import Row
from sie_server.engine.muvera import with_muvera
from sie_server.engine.outputs import joined
from sie_server.engine.quantize import Finished, finish
from sie_server.engine.results import Encoded

FLOAT_BYTES: Final = 4


async def encode(
    engine: Engine, name: str, items: Sequence[Item], params: EncodeParams, *, number_bytes: int = FLOAT_BYTES
) -> Encoded:
    """Encode the items of one request; cancelling it drops what has not started.

    `number_bytes`: what a number takes in the form in which the answer will be sent.

    Raises:
        Problem: any refusal of an encode call.
    """
    choice = engine.lookup(name, params.options or {})
    options = resolve_encode(choice.model, params)
    check_count(len(items), engine.limits.queue.max_items)
    limit = engine.limits.max_text_chars
    inputs = of_each(items, lambda place, item: inputs_of(choice.model, place, item, options.prompt, limit))
    counts = [len(of_item) for of_item in inputs]
    wants = Wants(options.computed, options.may_cut, counts)
    all_inputs = [each for of_item in inputs for each in of_item]
    async with engine.admitted(choice, all_inputs, wants, is_query=options.is_query) as admitted:
        _check_answer(choice.model, options, admitted.prepared, number_bytes, engine.limits.answer_vector_bytes)
        own = await admitted.rows(admitted.prepared)
        cost = admitted.cost()
    work = partial(_finish, joined(own, counts), options)
    # What adapters compute in already needs no work, and so no thread.
    is_finished = options.output_dtype == "float32" and options.muvera is None
    rows, spent_s = (work(), 0.0) if is_finished else await engine.pipeline.timed(work)
    cost = replace(cost, postprocessing_s=spent_s)
    return Encoded(choice.model.sie_id, rows, choice.model.dims, options, cost)


def _check_answer(
    model: ModelConfig, options: EncodeOptions, prepared: Sequence[Prepared], number_bytes: int, limit_bytes: int
) -> None:
    """Refuse a request whose token vectors would take too much memory; other vectors are one an item."""
    if "multivector" not in options.computed:
        return
    tokens = sum(each.tokens for each in prepared)
    of_items = options.muvera.dims * len(prepared) if options.muvera else 0
    size = (tokens * model.dims["multivector"] + of_items) * number_bytes
    if size > limit_bytes:
        message = (
            f"the {tokens} tokens of the request have vectors of {size >> 20} MiB, the limit is "
            f"{limit_bytes >> 20} MiB; send fewer items in one request"
            f"{', or accept msgpack, which takes less' if number_bytes > FLOAT_BYTES else ''}"
        )
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)


def _finish(rows: Sequence[Row], options: EncodeOptions) -> list[dict[str, Finished]]:
    rows = with_muvera(rows, options.muvera, is_query=options.is_query)
    return [{kind: finish(_vector(row, kind), options.output_dtype) for kind in options.output_types} for row in rows]


def _vector(row: Row, kind: str) -> Vector:
    output = row[kind]
    assert not isinstance(output, tuple | Data), f"'{kind}' is a vector"  # noqa: S101 - a bug of the adapter
    return output
