"""Where requests part: inference goes straight to the proxy, everything else through the framework."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send


class Front:
    """Plain ASGI: the first of the hot routes that matches, or the application.

    Whatever has a GET has a HEAD. The framework's ten layers of middleware cost as much as routing itself, and do
    nothing for bytes that pass through.
    """

    def __init__(self, hot: Sequence[BaseRoute], rest: ASGIApp) -> None:
        self._hot = tuple(hot)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        for route in self._hot:
            if route.matches(scope)[0] is Match.FULL:
                await route.handle(scope, receive, send)
                return
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # who asked for it sees that no body follows
        await self._rest(scope, receive, send)
