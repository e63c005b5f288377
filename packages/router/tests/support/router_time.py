"""Time that passes when it is told to."""

import asyncio
from collections.abc import Callable
from typing import Any, cast


class VirtualLoop:
    """Timers of a loop whose time passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[VirtualTimer] = []

    def as_loop(self) -> asyncio.AbstractEventLoop:
        """For who uses no more of a loop than its timers."""
        return cast("asyncio.AbstractEventLoop", cast("Any", self))

    def time(self) -> float:
        """Now."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "VirtualTimer":
        """A timer."""
        timer = VirtualTimer(self, when, callback)
        self.timers.append(timer)
        return timer

    def pass_to(self, moment: float) -> None:
        """Let time pass; timers that are due ring in their order."""
        while due := [timer for timer in self.timers if timer.at <= moment]:
            timer = min(due, key=VirtualTimer.when)
            self.timers.remove(timer)
            self.now = timer.at
            timer.callback()
        self.now = moment


class VirtualTimer:
    """One of them."""

    def __init__(self, loop: VirtualLoop, at: float, callback: Callable[[], None]) -> None:
        self.loop, self.at, self.callback = loop, at, callback

    def when(self) -> float:
        """When it rings."""
        return self.at

    def cancel(self) -> None:
        """Never ring."""
        if self in self.loop.timers:
            self.loop.timers.remove(self)
