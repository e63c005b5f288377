"""The inference routes: raw ASGI applications, matched without a pattern, described for the docs."""

from typing import Any, Final

from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from sie_protocol.compat import COMPAT_PATHS
from sie_protocol.headers import EMBEDDINGS, INFERENCE_OPERATIONS, JSON, MACHINE_PROFILE, MSGPACK, POOL, operation_path

_PREFIXES: Final = tuple(operation_path(operation, "") for operation in INFERENCE_OPERATIONS)
_ANSWERS: Final = {
    "200": "The worker's answer; msgpack unless Accept asks for JSON.",
    "202": "No worker is running yet, one is being provisioned; come back after Retry-After seconds.",
    "404": "No such model or pool.",
    "503": "Not now; the code says why, Retry-After when to come back.",
}


class InferenceRoute(BaseRoute):
    """Every method of `/v1/encode/...`, `/v1/score/...` and `/v1/extract/...`; the application refuses what it must."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A full match for whatever begins like an inference call."""
        if scope["type"] == "http" and scope["path"].startswith(_PREFIXES):
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over to the proxy."""
        await self._app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """These routes have no names to look up."""
        raise NoMatchFound(name, path_params)


class NamedRoute(InferenceRoute):
    """Every method of the routes in other services' shapes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A full match for exactly their paths."""
        if scope["type"] == "http" and scope["path"] in COMPAT_PATHS:
            return Match.FULL, {}
        return Match.NONE, {}


def describe(app: FastAPI) -> None:
    """Put the inference routes into `/openapi.json`; the framework does not see raw routes."""
    paths = app.openapi()["paths"]
    parameters = [_parameter("header", MACHINE_PROFILE), _parameter("header", POOL)]
    model = _parameter("path", "model", is_required=True)
    for operation in INFERENCE_OPERATIONS:
        described = _described(operation.capitalize(), [model, *parameters], {"type": "object"}, (JSON, MSGPACK))
        paths[operation_path(operation, "{model}")] = {"post": described}
    for path in COMPAT_PATHS:
        whose = "OpenAI" if path == EMBEDDINGS else "Cohere"
        named = {"type": "object", "properties": {"model": {"type": "string"}}, "required": ["model"]}
        paths[path] = {"post": _described(f"For clients of {whose}", parameters, named, (JSON,))}


def _parameter(where: str, name: str, *, is_required: bool = False) -> dict[str, Any]:
    return {"in": where, "name": name, "required": is_required, "schema": {"type": "string"}}


def _described(
    summary: str, parameters: list[dict[str, Any]], body: dict[str, Any], media: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": ["inference"],
        "parameters": parameters,
        "requestBody": {"required": True, "content": {each: {"schema": body} for each in media}},
        "responses": {code: {"description": text} for code, text in _ANSWERS.items()},
    }
