"""Every endpoint as a value: how its request is built and its answer read. What arguments mean is told here.

Shared arguments:
    model: id in the catalogue, for example "BAAI/bge-m3"; "bundle:/BAAI/bge-m3" insists on a bundle.
    items: one item, or a list of them. An item is a dict such as {"text": "hello"}; see `sie_sdk.types.Item`.
    gpu: machine profile to run on, for example "l4", or "pool/profile" for a reserved pool. Default: the client's.
    wait_for_capacity: True waits for workers to start and for lost connections to come back; False raises
        ProvisioningError or SIEConnectionError at once. Either way a call waits while the model loads (the worker is
        there) and when a busy server asks for another attempt.
    provision_timeout_s: seconds for the whole call with all its waits, 900 by default. One attempt takes at most the
        client's timeout_s. Retries are safe: these calls change nothing.
    max_oom_retries: further attempts after the worker ran out of memory, ever longer waits apart.
    on_progress: called with the number of items that are done and of all items, after each request that brought
        results. A list beyond 256 items or 8 MiB is sent in several requests, four at a time; results keep their order.
        If one of them fails for good the call raises its error, whose `partial` holds the results of the others.

Knows nothing of connections, time or retries.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec

from sie_protocol.errors import Problem
from sie_protocol.headers import JSON, MACHINE_PROFILE, MODELS, MSGPACK, POOL, operation_path
from sie_protocol.items import (
    EncodeParams,
    EncodeRequest,
    EncodeResult,
    Item,
    ModelInfo,
    ScoreRequest,
    ScoreResult,
    id_of,
)
from sie_protocol.names import suggestion
from sie_protocol.target import parse_model, parse_target
from sie_sdk import batches, flow, media
from sie_sdk.answers import incomplete, malformed, read
from sie_sdk.messages import Answer, OnProgress, Plan, Request
from sie_sdk.retry import Terms
from sie_sdk.settings import checked_options, checked_target

ENCODE: Final = "encode"
SCORE: Final = "score"
ASK_JSON: Final = (("Accept", JSON),)
# Also what only some published servers read. A misspelt one would be ignored there, and nothing be embedded.
ITEM_KEYS: Final = frozenset({*Item.__annotations__, "audio", "video", "document", "multivector"})
_SHOWN_CHARS: Final = 60


def encode_params(
    output_types: Sequence[str] | None,
    instruction: str | None,
    output_dtype: str | None,
    options: Mapping[str, Any],
) -> EncodeParams | None:
    """Parameters of an encode call; None when all are the model's defaults.

    Args:
        output_types: any of "dense", "sparse", "multivector"; default: what the model gives first.
        instruction: task description for models that read one.
        output_dtype: float32 (default), float16, int8, uint8, binary or ubinary.
        options: further options of the model; `profile` names one of its profiles.
    """
    if isinstance(output_types, str):
        raise TypeError(f"output_types is a list such as [{output_types!r}], not a string")
    params = EncodeParams(
        output_types=None if output_types is None else list(output_types),
        instruction=instruction,
        output_dtype=output_dtype,
        options=dict(options) or None,
    )
    return None if params == EncodeParams() else params


def merged_options(
    defaults: Mapping[str, Any], options: Mapping[str, Any] | None, *, is_query: bool | None
) -> dict[str, Any]:
    """The client's options with the call's over them; `is_query` travels among them."""
    query = {} if is_query is None else {"is_query": is_query}
    return {**defaults, **checked_options(options), **query}


def as_list(items: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Item]:
    """The items of a call as they travel; one item alone is a list of one.

    Raises:
        TypeError: something is no item, or has a misspelt key; the message shows it.
        ValueError, OSError: an image cannot be read, see `sie_sdk.media`.
    """
    given: Any = items  # callers without a type checker give anything
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise not_one("items", given)
    listed = [items] if isinstance(items, Mapping) else list(items)
    for at, item in enumerate(listed):
        if not isinstance(item, Mapping):
            raise not_one(f"items[{at}]", item)
        if isinstance(text := item.get("text"), str) and not text.isascii():
            _check_characters("the text" if isinstance(items, Mapping) else f"the text of items[{at}]", text)
        if not item.keys() <= ITEM_KEYS:
            _check_spelling("an item" if isinstance(items, Mapping) else f"items[{at}]", item.keys() - ITEM_KEYS)
    return media.wire_items(listed)


def not_one(what: str, found: Any) -> TypeError:
    """The error of something in the place of an item; shows how the same text is one."""
    text = found if isinstance(found, str) else "hello"
    text = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ..."
    kind = type(found).__name__
    shown = f"the {kind} {text!r}" if isinstance(found, str) else "None" if found is None else f"{kind}: {found!r:.80}"
    return TypeError(f"{what}: an item is a dict such as {{'text': {text!r}}}, not {shown}")


def _check_characters(where: str, text: str) -> None:
    """Refuse half a character, of a text that was cut in one or read with `surrogateescape`: no UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at {error.start}"
        raise ValueError(
            f"{where} holds half a character ({found}), which cannot be sent; "
            "text.encode('utf-8', 'replace').decode() puts a question mark there"
        ) from error


def _check_spelling(where: str, unknown: Iterable[Any]) -> None:
    """Refuse keys that look like others; what is only the caller's own travels along, and no server reads it."""
    for key in unknown:
        if meant := suggestion(str(key), sorted(ITEM_KEYS)):
            raise TypeError(f"{where} has an unknown key '{key!s:.80}'{meant}")


def encode(
    terms: Terms,
    model: str,
    items: Sequence[Item],
    params: EncodeParams | None,
    on_progress: OnProgress | None = None,
) -> Plan[list[EncodeResult]]:
    """Embed each item; one result per item, in order.

    A result holds what was asked for: `dense` is an array of shape [dims], `sparse` a dict of `indices` (int32) and
    `values`, both of shape [non-zeros], `multivector` an array of shape [tokens, dims]. Arrays are read-only views on
    the answer. int8 and uint8 come with `quantization`: by output, the `scale` and `offset` for which `values * scale +
    offset` is the vector again. `id` is that of the item, `timing` (milliseconds) and `usage` are those of the whole
    request; `usage["truncated_items"]` counts texts that were longer than the model reads, and cut.
    """

    def ask(some: Sequence[Item]) -> Request:
        return encode_request(terms, model, some, params)

    def parse(some: Sequence[Item], answer: Answer) -> list[EncodeResult]:
        from sie_sdk import vectors  # noqa: PLC0415 - numpy takes longer to import than the whole SDK

        return vectors.results(some, answer)

    return batches.call(items, terms, ask, parse, on_progress)


def encode_request(terms: Terms, model: str, items: Sequence[Item], params: EncodeParams | None) -> Request:
    """`POST /v1/encode/{model}` with a msgpack body."""
    return inference(terms, ENCODE, model, EncodeRequest(items=list(items), params=params))


def score(
    terms: Terms,
    model: str,
    query: Mapping[str, Any],
    items: Sequence[Item],
    instruction: str | None,
    options: Mapping[str, Any],
    on_progress: OnProgress | None = None,
) -> Plan[ScoreResult]:
    """Score each item against the query: how well it answers it, the higher the better.

    The result's `scores` hold every item, best first: `score`, `rank` from 0, and `item_id`, which is the item's own
    id or `item-N` by its place in `items`; `query_id` is the query's id. `instruction` is a task description, put in
    front of the query. Models of vectors score by the cosine of the two, or by their product with the option
    `similarity` "dot".
    """
    if not isinstance(query, Mapping):
        raise not_one("the query", query)
    [asked] = as_list(query)

    def ask(some: Sequence[Item]) -> Request:
        return score_request(terms, model, asked, some, instruction, options)

    return batches.ranked(items, terms, ask, _score_result, on_progress)


def score_request(
    terms: Terms,
    model: str,
    query: Item,
    items: Sequence[Item],
    instruction: str | None,
    options: Mapping[str, Any],
) -> Request:
    """`POST /v1/score/{model}` with a msgpack body."""
    body = ScoreRequest(query=query, items=list(items), instruction=instruction, options=dict(options) or None)
    return inference(terms, SCORE, model, body)


def list_models(terms: Terms) -> Plan[list[ModelInfo]]:
    """All models of the catalogue, also those that no worker has loaded."""
    return flow.single(Request("GET", MODELS, ASK_JSON), terms, partial(read, kind=_Models, pick=lambda it: it.models))


def get_model(terms: Terms, model: str) -> Plan[ModelInfo]:
    """One model; `dims` maps an output type to its dimension. RequestError with MODEL_NOT_FOUND if there is none."""
    request = Request("GET", f"{MODELS}/{_quoted(model)}", ASK_JSON)
    return flow.single(request, terms, partial(read, kind=ModelInfo, pick=lambda it: it))


class _Models(msgspec.Struct, frozen=True):
    models: list[ModelInfo]


def _pack(value: Any) -> Any:
    from sie_protocol import arrays  # noqa: PLC0415 - as above

    return arrays.pack(value)


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_pack)


def inference(terms: Terms, operation: str, model: str, body: msgspec.Struct) -> Request:
    """`POST /v1/{operation}/{model}` with a msgpack body.

    Raises:
        TypeError: something in the body cannot travel.
        ValueError: model or gpu are none.
    """
    path = operation_path(operation, _quoted(model))
    headers = (("Content-Type", MSGPACK), ("Accept", MSGPACK), *_target_headers(terms.gpu))
    try:
        return Request("POST", path, headers, _encoder.encode(body))
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise TypeError(f"the items or options cannot be sent: {error}") from error


def _quoted(model: str) -> str:
    if not isinstance(model, str):
        raise TypeError(f"model is {model!r:.80}; expected the id of a model, such as 'BAAI/bge-m3'")
    try:
        parse_model(model)
    except Problem as problem:
        raise ValueError(problem.message) from problem
    if any(part in (".", "..") for part in model.split("/")):
        raise ValueError(f"'{model}' is not a model id; '.' and '..' stand alone in it")
    return quote(model, safe="/")


def _target_headers(gpu: str | None) -> tuple[tuple[str, str], ...]:
    target = parse_target(checked_target(gpu))
    named = ((POOL, target.pool), (MACHINE_PROFILE, target.profile))
    return tuple((name, value) for name, value in named if value is not None)


def _score_result(items: Sequence[Item], answer: Answer) -> ScoreResult:
    result: ScoreResult = read(answer, kind=ScoreResult, pick=lambda it: it)
    if "scores" not in result:
        raise malformed(answer, "it has no list of scores")
    if len(result["scores"]) != len(items):
        raise incomplete(answer, f"{len(result['scores'])} scores for {len(items)} items")
    wanted = sorted(str(id_of(item, at)) for at, item in enumerate(items))
    found = sorted(entry["item_id"] for entry in result["scores"])
    if found != wanted:
        raise incomplete(answer, "scores of other items than those that were sent")
    return result
