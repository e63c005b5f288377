"""The error shape of other services' clients (OpenAI, Cohere), on the routes that speak to those."""

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
