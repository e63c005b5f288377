"""Gives up clients that do not take their answers: each would keep a worker's connection, and its group from zero."""

import asyncio
import logging

from sie_router.data.deadline import Deadline

logger = logging.getLogger(__name__)


class Unread:
    """Watches what a client has yet to take; breaks the connection once that has not become less for `pause_s`."""

    __slots__ = ("_deadline", "_left_bytes", "_pause_s", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, pause_s: float) -> None:
        self._deadline = Deadline(loop, self._look)
        self._left_bytes = 0
        self._pause_s = pause_s
        self._transport = transport

    def begin(self) -> None:
        """The client has more to take than it should."""
        self._left_bytes = self._transport.get_write_buffer_size()
        if self._left_bytes:
            self._deadline.set(self._pause_s)

    def end(self) -> None:
        """It caught up; of a connection that is to close it has to take everything."""
        if not self._transport.is_closing():
            self._deadline.clear()

    def close(self) -> None:
        """The connection is gone."""
        self._deadline.close()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._left_bytes:
            self.begin()
        else:
            logger.warning("a client took nothing of its answer for %g s: gave it up", self._pause_s)
            self._transport.abort()
