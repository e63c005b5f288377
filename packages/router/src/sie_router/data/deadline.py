"""A timer that is set for every request and hardly ever rings."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Rings once when the time it was set to last has come. `close` when it is not needed any more.

    Making and cancelling a timer costs as much as choosing a worker. So the loop's timer stays when the deadline moves
    away, and looks when it fires whether there still is one.
    """

    __slots__ = ("_at", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_s: float) -> None:
        """Ring after this time, and at no other."""
        self._at = self._loop.time() + delay_s
        if self._timer is None or self._timer.when() > self._at:
            self._arm(self._at)

    def clear(self) -> None:
        """Do not ring."""
        self._at = None

    def close(self) -> None:
        """Do not ring, and let go of the loop."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fired)

    def _fired(self) -> None:
        self._timer, at = None, self._at
        if at is None:
            return
        if at > self._loop.time():
            self._arm(at)
            return
        self._at = None
        self._ring()
