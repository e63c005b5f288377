"""Puts the server's version on every answer."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HEADER: Final = (SERVER_VERSION.lower().encode(), VERSION.encode())


class VersionHeader:
    """Plain ASGI middleware; outermost, so that no answer escapes it."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _HEADER]
            await send(message)

        await self._app(scope, receive, send_versioned)
