"""`POST /v1/rerank` (and `/v2/rerank`) as clients of Cohere and Jina speak it; the scores are those of `/v1/score`."""

from typing import Any

import msgspec
from starlette.types import Scope

from sie_protocol.catalog import ModelConfig
from sie_protocol.headers import JSON
from sie_protocol.items import Item
from sie_server.api.compat import about, decoded, written, wrong
from sie_server.api.edge import REQUEST_ID_KEY
from sie_server.api.tasks import Outcome, Reply, TaskContext, timing_headers
from sie_server.core.scoring import check_candidates, resolve_score
from sie_server.engine import scoring
from sie_server.engine.results import Scored


class Document(msgspec.Struct, frozen=True):
    """A document as an object; its other fields are ignored."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True):
    """The body; unknown fields change nothing. Without `top_n` every document is in the answer.

    `options` are those of `/v1/score`.
    """

    model: str
    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None
    options: dict[str, Any] | None = None


async def rerank(context: TaskContext, scope: Scope, body: bytes, outcome: Outcome) -> Reply:
    """Answer one rerank request."""
    request = await decoded(context, body, RerankRequest)
    options = request.options or {}
    with about("model"):
        model = context.engine.lookup(request.model).model
    outcome.model = model.sie_id
    if options:
        with about("options"):
            resolve_score(context.engine.lookup(request.model, options).model, None, options)
    _check_cut(model, request.max_tokens_per_doc)
    if request.top_n is not None and request.top_n < 1:
        raise wrong("top_n", f"is {request.top_n}; expected at least 1")
    if not request.documents:
        raise wrong("documents", "is empty; send at least one document")
    with about("documents"):
        check_candidates(len(request.documents))
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    items = [Item(text=text) for text in texts]
    scored = await scoring.score(context.engine, request.model, Item(text=request.query), items, None, options)
    outcome.spent(scored.cost)
    size = sum(map(len, texts)) if request.return_documents else 0
    payload = await written(context, size, lambda: _reply(scope[REQUEST_ID_KEY], request, texts, scored))
    return JSON, payload, timing_headers(scored.cost)


def _check_cut(model: ModelConfig, tokens: int | None) -> None:
    """Refuse to cut documents before the model's own end; nothing here does."""
    longest = model.max_sequence_length
    if tokens is not None and (longest is None or tokens < longest):
        end = "where the model stops" if longest is None else f"after {longest} tokens"
        raise wrong("max_tokens_per_doc", f"is {tokens}; documents are cut {end} and nowhere before, leave it out")


def _reply(request_id: str, request: RerankRequest, texts: list[str], scored: Scored) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for at in scored.order[: request.top_n]:
        own = {"document": {"text": texts[at]}} if request.return_documents else {}
        results.append({"index": at, "relevance_score": scored.scores[at], **own})
    return {
        "id": request_id,
        "model": scored.model,
        "results": results,
        "usage": {"prompt_tokens": scored.cost.input_tokens, "total_tokens": scored.cost.input_tokens},
        "meta": {"tokens": {"input_tokens": scored.cost.input_tokens}},  # where Cohere's client looks for the usage
    }
