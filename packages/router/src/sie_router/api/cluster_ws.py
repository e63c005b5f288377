"""Tells watchers about the cluster once a second."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from sie_protocol.headers import CLUSTER_STATUS
from sie_protocol.status import ClusterStatus
from sie_router.core.pools import Caller
from sie_router.data.caller import seen_as

EVERY_S: Final = 1.0
MAX_WATCHERS: Final = 64
_TRY_AGAIN_LATER: Final = 1013


class ClusterWatch:
    """Serves `/ws/cluster-status`. Watchers of the same moment and token share one encoded frame."""

    def __init__(self, status: Callable[[Caller], ClusterStatus], clock: Callable[[], float]) -> None:
        self._status = status
        self._clock = clock
        self._frames: dict[Caller, str] = {}  # bounded by the watchers
        self._frames_at = float("-inf")
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
        caller = seen_as(socket.scope)
        listening = asyncio.create_task(_until_closed(socket))
        try:
            while not listening.done():
                await socket.send_text(self._encoded(caller))
                await asyncio.wait({listening}, timeout=EVERY_S)
        except WebSocketDisconnect:
            pass
        finally:
            self.watchers -= 1
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _encoded(self, caller: Caller) -> str:
        now = self._clock()
        if now - self._frames_at > EVERY_S / 2:
            self._frames.clear()
            self._frames_at = now
        frame = self._frames.get(caller)
        if frame is None:
            frame = self._frames[caller] = msgspec.json.encode(self._status(caller)).decode()
        return frame


async def _until_closed(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
