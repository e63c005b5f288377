"""`POST /v1/encode/{model}`: items to vectors."""

from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import Scope

from sie_protocol import arrays
from sie_protocol.codec import encode_body, wants_msgpack
from sie_protocol.items import EncodeParams, EncodeRequest
from sie_server.api.edge import header
from sie_server.api.tasks import OFF_LOOP_BYTES, Outcome, Reply, TaskContext, decoded, timing_headers, usage
from sie_server.engine import encoding
from sie_server.engine.quantize import Finished
from sie_server.engine.results import Encoded

NO_PARAMS = EncodeParams()


async def encode(context: TaskContext, scope: Scope, body: bytes, outcome: Outcome) -> Reply:
    """Answer one encode request."""
    started = perf_counter()
    name: str = scope["path_params"]["model"]
    outcome.model = context.engine.lookup(name).model.sie_id
    request = await decoded(context, body, header(scope, b"content-type"), EncodeRequest)
    accept = header(scope, b"accept")
    number_bytes = encoding.FLOAT_BYTES if wants_msgpack(accept) else arrays.JSON_NUMBER_BYTES
    encoded = await encoding.encode(
        context.engine, name, request.items, request.params or NO_PARAMS, number_bytes=number_bytes
    )
    outcome.spent(encoded.cost)
    value = encode_reply(request, encoded, perf_counter() - started)
    write = partial(encode_body, value, accept, arrays.hook_for(accept))
    size = number_bytes // encoding.FLOAT_BYTES * sum(each.size_bytes for row in encoded.rows for each in row.values())
    media, payload = write() if size < OFF_LOOP_BYTES else await context.pipeline.run(write)
    return media, payload, timing_headers(encoded.cost)


def encode_reply(request: EncodeRequest, encoded: Encoded, total_s: float) -> dict[str, Any]:
    """The body of an encode answer."""
    items: list[dict[str, Any]] = []
    for item, row in zip(request.items, encoded.rows, strict=True):
        reply: dict[str, Any] = {kind: output_form(kind, encoded.dims[kind], found) for kind, found in row.items()}
        if (identity := item.get("id")) is not None:
            reply["id"] = identity
        items.append(reply)
    return {
        "model": encoded.model,
        "items": items,
        "timing": {
            "total_ms": total_s * 1000,
            "queue_ms": encoded.cost.queue_s * 1000,
            "tokenization_ms": encoded.cost.tokenization_s * 1000,
            "inference_ms": encoded.cost.inference_s * 1000,
            "postprocessing_ms": encoded.cost.postprocessing_s * 1000,
        },
        "usage": usage(encoded.cost),
    }


def output_form(kind: str, dims: int, found: Finished) -> dict[str, Any]:
    """One output as it travels; `dims` counts components, however they are packed."""
    form: dict[str, Any] = {"dtype": found.dtype, "values": found.values}
    if kind == "multivector":
        form |= {"token_dims": dims, "num_tokens": len(found.values)}
    else:
        form["dims"] = dims
    extra = {"indices": found.indices, "scale": found.scale, "offset": found.offset}
    present = {name: value for name, value in extra.items() if value is not None}
    return form | {name: value if value.ndim else value.item() for name, value in present.items()}
