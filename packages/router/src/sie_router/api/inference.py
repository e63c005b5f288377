"""The three inference routes: one raw ASGI application, matched without a pattern, described for the docs."""

from typing import Any, Final

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from sie_protocol.headers import INFERENCE_OPERATIONS, operation_path

_PREFIXES: Final = tuple(operation_path(operation, "") for operation in INFERENCE_OPERATIONS)


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
