"""Gives up clients that do not take their answers: each would keep a worker's connection, and its group from zero."""

import asyncio
import logging
from array import array
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ

from sie_router.data.deadline import Deadline

logger = logging.getLogger(__name__)


class SlowClient:
    """Watches what a client has yet to take; breaks the connection once that has not become less for `pause_s`."""

    __slots__ = ("_deadline", "_pause_s", "_transport", "_unsent_bytes")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, pause_s: float) -> None:
        self._deadline = Deadline(loop, self._look)
        self._unsent_bytes = 0
        self._pause_s = pause_s
        self._transport = transport

    def begin(self) -> None:
        """The client has more to take than it should."""
        if self._transport.get_write_buffer_size():
            self._unsent_bytes = unsent_bytes(self._transport)
            self._deadline.set(self._pause_s)

    def end(self) -> None:
        """It caught up; of a connection that is to close it has to take everything."""
        if not self._transport.is_closing():
            self._deadline.clear()

    def close(self) -> None:
        """The connection is gone."""
        self._deadline.close()

    def _look(self) -> None:
        if unsent_bytes(self._transport) < self._unsent_bytes:
            self.begin()
        else:
            logger.warning("a client took nothing of its answer for %g s: gave it up", self._pause_s)
            self._transport.abort()


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """What was written and has not reached the client.

    The system takes no more from us until a third of its own buffer, megabytes, is free: our buffer alone would not
    change for minutes while a slow client reads.
    """
    sent = array("i", [0])
    with suppress(OSError):  # it is closed, or a system that does not tell
        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, sent)
    return transport.get_write_buffer_size() + sent[0]
