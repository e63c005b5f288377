"""`POST /v1/embeddings` as OpenAI's clients speak it; the vectors are those of `/v1/encode` for documents."""

import base64
from typing import Any, Literal

import msgspec
from starlette.types import Scope

from sie_protocol.arrays import JSON_NUMBER_BYTES, Array
from sie_protocol.errors import Problem
from sie_protocol.headers import JSON
from sie_protocol.items import EncodeParams, Item
from sie_server.api.compat import about, decoded, written, wrong
from sie_server.api.tasks import Outcome, Reply, TaskContext, timing_headers
from sie_server.core.dimensions import check_dimensions, shortened
from sie_server.core.values import check_count
from sie_server.engine import encoding
from sie_server.engine.results import Encoded

DENSE = EncodeParams(output_types=["dense"], output_dtype="float32")


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """The body; unknown fields, and `user`, change nothing."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


async def embeddings(context: TaskContext, _: Scope, body: bytes, outcome: Outcome) -> Reply:
    """Answer one embeddings request."""
    request = await decoded(context, body, EmbeddingsRequest)
    with about("model"):
        model = context.engine.lookup(request.model).model
    outcome.model = model.sie_id
    if request.dimensions is not None:
        with about("dimensions"):
            check_dimensions(model, request.dimensions)
    with about("input"):
        texts = await _texts(context, request)
    encoded = await encoding.encode(context.engine, request.model, [Item(text=text) for text in texts], DENSE)
    outcome.spent(encoded.cost)
    size = JSON_NUMBER_BYTES * sum(row["dense"].values.size for row in encoded.rows)
    return JSON, await written(context, size, lambda: _reply(request, encoded)), timing_headers(encoded.cost)


async def _texts(context: TaskContext, request: EmbeddingsRequest) -> list[str]:
    """The texts to embed; token ids are turned back into the text that they stand for."""
    asked = [request.input] if isinstance(request.input, str) else request.input
    if not asked:
        raise _empty()
    if not isinstance(asked[0], int):
        check_count(len(asked), context.engine.limits.queue.max_items)
    texts = [each for each in asked if isinstance(each, str)]
    numbers = [each for each in asked if isinstance(each, int)]
    lists = [each for each in asked if isinstance(each, list)]
    if [] in lists:
        raise _empty()
    if len(asked) not in (len(texts), len(numbers), len(lists)):
        raise wrong("input", "mixes texts and token ids; send one kind")
    if len(texts) == len(asked):
        return texts
    return await context.engine.texts_of(request.model, [numbers] if numbers else lists)


def _empty() -> Problem:
    return wrong("input", "is empty; send a text, a list of token ids, or a list of either")


def _reply(request: EmbeddingsRequest, encoded: Encoded) -> dict[str, Any]:
    as_text = request.encoding_format == "base64"
    vectors = [shortened(row["dense"].values, request.dimensions or row["dense"].values.size) for row in encoded.rows]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": _base64(each) if as_text else each}
            for at, each in enumerate(vectors)
        ],
        "model": encoded.model,
        "usage": {"prompt_tokens": encoded.cost.input_tokens, "total_tokens": encoded.cost.input_tokens},
    }


def _base64(vector: Array) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
