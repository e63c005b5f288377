"""Status frames for a task."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from sie_protocol.status import STALE_AFTER_S
from sie_sdk import watching
from sie_sdk.drivers import AsyncClock, tell
from sie_sdk.messages import OnWait
from sie_sdk.settings import Settings
from sie_sdk.types import StatusFrame

try:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException
except ImportError as error:
    raise ImportError(watching.MISSING) from error


class _Connect(connect):
    """Follows no redirect: the key is for the server that the user named."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def watch(
    settings: Settings, path: str, closed: asyncio.Event, on_wait: OnWait | None, clock: AsyncClock
) -> AsyncGenerator[StatusFrame]:
    """Frames as they come; connects again, with growing pauses, when the server goes away or falls silent."""
    began, attempt = clock.now(), 0
    while not closed.is_set():
        reason = "the server closed the connection"
        try:
            async with _open(settings, path) as socket:
                while (text := await _next(socket, closed)) is not None:
                    frame = watching.decoded(text)
                    if frame is not None:
                        attempt = 0
                        yield frame
        except InvalidStatus as error:
            if lasting := watching.refusal(path, error.response):
                raise lasting from error
            reason = str(error)
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            reason = str(error) or f"nothing was heard for {STALE_AFTER_S:g} s"
        if not closed.is_set():
            attempt += 1
            event = watching.reconnect(reason, attempt, clock.now() - began, clock.draw())
            tell(on_wait, event)
            await clock.wait(closed, event.delay_s)


def _open(settings: Settings, path: str) -> _Connect:
    return _Connect(
        watching.address(settings, path),
        additional_headers=watching.headers(settings),
        user_agent_header=watching.USER_AGENT,
        open_timeout=settings.connect_timeout_s,
        close_timeout=watching.CLOSE_TIMEOUT_S,
        max_size=watching.MAX_FRAME_BYTES,
    )


async def _next(socket: Any, closed: asyncio.Event) -> str | bytes | None:
    """The next message, or None when the client is closed first."""
    receiving, closing = asyncio.create_task(socket.recv()), asyncio.create_task(closed.wait())
    try:
        done, _ = await asyncio.wait((receiving, closing), timeout=STALE_AFTER_S, return_when=asyncio.FIRST_COMPLETED)
        if receiving in done:
            text: str | bytes = await receiving
            return text
        if closing in done:
            return None
        raise TimeoutError
    finally:
        receiving.cancel()
        closing.cancel()
        await asyncio.gather(receiving, closing, return_exceptions=True)
