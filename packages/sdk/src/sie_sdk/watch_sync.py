"""Status frames for a thread."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from sie_protocol.status import STALE_AFTER_S
from sie_sdk import watching
from sie_sdk.drivers import SyncClock, tell
from sie_sdk.messages import OnWait
from sie_sdk.settings import Settings
from sie_sdk.types import StatusFrame

try:
    from websockets.exceptions import InvalidStatus, WebSocketException
    from websockets.sync import client
    from websockets.sync.client import ClientConnection
except ImportError as error:
    raise ImportError(watching.MISSING) from error


class Watch:
    """One iteration over the frames of a path; `close` ends it, from any thread."""

    def __init__(
        self, settings: Settings, path: str, closed: threading.Event, on_wait: OnWait | None, clock: SyncClock
    ) -> None:
        self._settings = settings
        self._path = path
        self._closed = closed  # the client
        self._on_wait = on_wait
        self._clock = clock
        self._socket: ClientConnection | None = None

    def frames(self) -> Iterator[StatusFrame]:
        """Frames as they come; connects again, with growing pauses, when the server goes away or falls silent."""
        began, attempt = self._clock.now(), 0
        while not self._closed.is_set():
            reason = "the server closed the connection"
            try:
                with self._open() as self._socket:
                    for frame in self._received(self._socket):
                        attempt = 0
                        yield frame
            except InvalidStatus as error:
                if lasting := watching.refusal(self._path, error.response):
                    raise lasting from error
                reason = str(error)
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                reason = str(error) or f"nothing was heard for {STALE_AFTER_S:g} s"
            if not self._closed.is_set():
                attempt += 1
                event = watching.reconnect(reason, attempt, self._clock.now() - began, self._clock.draw())
                tell(self._on_wait, event)
                self._clock.wait(self._closed, event.delay_s)

    def close(self) -> None:
        """Close the connection; whoever reads from it gets no further frame."""
        if self._socket is not None:
            self._socket.close()

    def _open(self) -> AbstractContextManager[ClientConnection]:
        # Newer versions of websockets follow redirects and call that `reconnect`; older ones only have `connect`.
        opening: Any = getattr(client, "reconnect", client.connect)(
            watching.address(self._settings, self._path),
            additional_headers=watching.headers(self._settings),
            user_agent_header=watching.USER_AGENT,
            open_timeout=self._settings.connect_timeout_s,
            close_timeout=watching.CLOSE_TIMEOUT_S,
            max_size=watching.MAX_FRAME_BYTES,
        )
        if hasattr(opening, "process_redirect"):
            opening.process_redirect = _unfollowed
        return opening  # type: ignore[no-any-return]  # either is a context manager of the connection

    def _received(self, socket: ClientConnection) -> Iterator[StatusFrame]:
        while not self._closed.is_set():
            frame = watching.decoded(socket.recv(timeout=STALE_AFTER_S))
            if frame is not None:
                yield frame


def _unfollowed(error: Exception) -> Exception:
    """Follow no redirect: the key is for the server that the user named."""
    return error
