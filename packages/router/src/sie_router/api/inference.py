"""The three inference routes: one raw ASGI application, matched without a pattern, described for the docs."""

from typing import Any, Final

from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from sie_protocol.headers import INFERENCE_OPERATIONS, JSON, MACHINE_PROFILE, MSGPACK, POOL, operation_path

_PREFIXES: Final = tuple(operation_path(operation, "") for operation in INFERENCE_OPERATIONS)
_MEDIA: Final = {media: {"schema": {"type": "object"}} for media in (JSON, MSGPACK)}
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


def describe(app: FastAPI) -> None:
    """Put the inference routes into `/openapi.json`; the framework does not see raw routes."""
    schema = app.openapi()
    for operation in INFERENCE_OPERATIONS:
        schema["paths"][operation_path(operation, "{model}")] = {"post": _described(operation)}


def _described(operation: str) -> dict[str, Any]:
    parameters = [("path", "model", True), ("header", MACHINE_PROFILE, False), ("header", POOL, False)]
    return {
        "summary": operation.capitalize(),
        "tags": ["inference"],
        "parameters": [
            {"in": where, "name": name, "required": required, "schema": {"type": "string"}}
            for where, name, required in parameters
        ],
        "requestBody": {"required": True, "content": _MEDIA},
        "responses": {code: {"description": text} for code, text in _ANSWERS.items()},
    }
