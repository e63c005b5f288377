"""Tells watchers about the cluster once a second."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from sie_protocol.headers import CLUSTER_STATUS
from sie_protocol.status import ClusterStatus

EVERY_S: Final = 1.0
MAX_WATCHERS: Final = 64
_TRY_AGAIN_LATER: Final = 1013


class ClusterWatch:
    """Serves `/ws/cluster-status`. Watchers of the same moment share one encoded frame."""

    def __init__(self, status: Callable[[], ClusterStatus], clock: Callable[[], float]) -> None:
        self._status = status
        self._clock = clock
        self._frame = ""
        self._frame_at = float("-inf")
        self.watchers = 0

    def route(self) -> WebSocketRoute:
        """The route to mount."""
        return WebSocketRoute(CLUSTER_STATUS, self._serve)

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept()
        if self.watchers >= MAX_WATCHERS:
            await socket.close(_TRY_AGAIN_LATER, f"{MAX_WATCHERS} others are watching already")
            return
        self.watchers += 1
        listening = asyncio.create_task(_until_closed(socket))
        try:
            while not listening.done():
                await socket.send_text(self._encoded())
                await asyncio.wait({listening}, timeout=EVERY_S)
        except WebSocketDisconnect:
            pass
        finally:
            self.watchers -= 1
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _encoded(self) -> str:
        now = self._clock()
        if now - self._frame_at > EVERY_S / 2:
            self._frame = msgspec.json.encode(self._status()).decode()
            self._frame_at = now
        return self._frame


async def _until_closed(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
