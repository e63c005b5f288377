"""`/ws/status`: tells routers what this worker is and does, when it changes and at least once a second."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from sie_protocol.status import HEARTBEAT_S, WorkerStatus
from sie_protocol.versions import VERSION
from sie_server.engine.engine import Engine
from sie_server.engine.signal import Signal

COALESCE_S = 0.05
TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is, as routers see it."""

    name: str
    machine_profile: str
    pool: str
    bundle: str
    max_batch_items: int


class StatusFeed:
    """Frames for at most so many watchers at once. `config_hash` is that of the catalogue."""

    def __init__(self, identity: Identity, engine: Engine, max_watchers: int, config_hash: str) -> None:
        self.config_hash = config_hash
        self._identity = identity
        self._engine = engine
        self._changed: Signal = engine.changed
        self._free = max_watchers
        self._shared: tuple[int, float, str] = (-1, 0.0, "")  # of which version, from when, the frame itself

    def frame(self, now: float) -> WorkerStatus:
        """What this worker is at this wall-clock time."""
        models, gpus, own = self._engine.statuses(), self._engine.gpus(), self._identity
        return WorkerStatus(
            ready=self._engine.unready is None,
            draining=self._engine.draining,
            name=own.name,
            machine_profile=own.machine_profile,
            pool_name=own.pool,
            bundle=own.bundle,
            bundle_config_hash=self.config_hash,
            version=VERSION,
            gpu_count=len(gpus),
            max_batch_requests=own.max_batch_items,
            timestamp=now,
            loaded_models=tuple(model.name for model in models if model.state == "loaded"),
            models=models,
            gpus=gpus,
        )

    def encoded(self, now: float) -> str:
        """The frame as it travels. Watchers that hear of the same change share one: it is the same for all."""
        version, at, text = self._shared
        if version != self._changed.version or not 0 <= now - at < COALESCE_S:
            text = msgspec.json.encode(self.frame(now)).decode()
            self._shared = (self._changed.version, now, text)
        return text

    async def serve(self, socket: WebSocket) -> None:
        """Feed one watcher until it leaves."""
        if not self._free:
            await socket.close(TRY_AGAIN_LATER)
            return
        self._free -= 1
        try:
            await socket.accept()
            await self._feed(socket)
        finally:
            self._free += 1

    async def _feed(self, socket: WebSocket) -> None:
        sending = asyncio.create_task(self._send(socket))
        leaving = asyncio.create_task(_until_gone(socket))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                seen = self._changed.version
                await socket.send_text(self.encoded(time.time()))
                await asyncio.sleep(COALESCE_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.changed(seen), HEARTBEAT_S - COALESCE_S)


async def _until_gone(socket: WebSocket) -> None:
    """Whatever a watcher sends is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
