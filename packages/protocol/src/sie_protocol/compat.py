"""What clients of other services (OpenAI, Cohere) read: the errors of their routes, and the list of models."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import EMBEDDINGS, RERANK, RERANK_V2

# Routes that name the model in a JSON body; whatever they refuse has this shape.
COMPAT_PATHS: Final = (EMBEDDINGS, RERANK, RERANK_V2)
_SERVER_ERRORS: Final = 500
_TYPES: Final = MappingProxyType(
    {
        ErrorCode.UNAUTHENTICATED: "authentication_error",
        ErrorCode.FORBIDDEN: "permission_error",
        ErrorCode.RATE_LIMITED: "rate_limit_error",
    }
)


def compat_body(problem: Problem) -> dict[str, Any]:
    """The body of a refusal; status and headers are those of `errors.envelope`, `param` is among the details."""
    own = "server_error" if problem.status >= _SERVER_ERRORS else "invalid_request_error"
    error = {
        "message": problem.message,
        "type": _TYPES.get(problem.code, own),
        "param": problem.details.get("param"),
        "code": str(problem.code),
    }
    return {"error": error}


def listed(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of `GET /v1/models`: `models` for clients of SIE, and the same list as those of OpenAI read it."""
    return {"models": models, "object": "list", "data": [_entry(model["name"]) for model in models]}


def described(model: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `GET /v1/models/{model}`, for both."""
    return {**model, **_entry(model["name"])}


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
