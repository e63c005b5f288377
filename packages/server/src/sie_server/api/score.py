"""`POST /v1/score/{model}`: how well each item answers the query."""

from starlette.types import Scope

from sie_protocol.codec import encode_body
from sie_protocol.items import ScoreRequest, ScoreResult, id_of
from sie_server.api.edge import header
from sie_server.api.tasks import Outcome, Reply, TaskContext, decoded, timing_headers, usage
from sie_server.engine import scoring
from sie_server.engine.results import Scored


async def score(context: TaskContext, scope: Scope, body: bytes, outcome: Outcome) -> Reply:
    """Answer one score request."""
    name: str = scope["path_params"]["model"]
    outcome.model = context.engine.lookup(name).model.sie_id
    request = await decoded(context, body, header(scope, b"content-type"), ScoreRequest)
    scored = await scoring.score(
        context.engine, name, request.query, request.items, request.instruction, request.options or {}
    )
    outcome.spent(scored.cost)
    media, payload = encode_body(score_reply(request, scored), header(scope, b"accept"))
    return media, payload, timing_headers(scored.cost)


def score_reply(request: ScoreRequest, scored: Scored) -> ScoreResult:
    """The body of a score answer."""
    return {
        "model": scored.model,
        "query_id": request.query.get("id"),
        "scores": [
            {"item_id": id_of(request.items[at], at), "score": scored.scores[at], "rank": rank}
            for rank, at in enumerate(scored.order)
        ],
        "usage": usage(scored.cost),
    }
