"""uvicorn with an orderly end: SIGTERM makes the worker unready, finishes what was accepted, and exits with 0."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that it is they who close them
GRACE_FOR_REPLIES_S = 5  # for connections that are still reading their answer when everything is computed


class WorkerServer(uvicorn.Server):
    """Serves until a signal; `on_listen` runs beside it from the first request on, `drain` between signal and exit.

    A second signal is uvicorn's own business: it stops at once.
    """

    def __init__(
        self, config: uvicorn.Config, on_listen: Callable[[], Awaitable[None]], drain: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._on_listen = on_listen
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then start what should not delay listening."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._warming = self._loop.create_task(_run(self._on_listen))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections, then wait for this server's own tasks."""
        await super().shutdown(sockets)
        tasks = [task for task in (self._warming, self._stopping) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second signal: stop."""
        if self._stopping is not None or self._loop is None or self.should_exit:
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())

    async def _stop(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
