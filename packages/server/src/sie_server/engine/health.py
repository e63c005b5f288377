"""Whether the device computes. A batch that ends well is proof; without one for a while, a tiny product is asked for.

On an accelerator the product goes the way of a batch, so that one that hangs is found as well as one that fails. A CPU
has a thread to spare for it: there a long batch is no sign of anything. It knows no model: a model that fails by itself
makes no worker unready.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sie_server.engine.device import Device, Work
from sie_server.engine.loop import Clock
from sie_server.engine.signal import Signal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """How often an idle device is tried, in seconds, and how long it may take; 0 means never."""

    interval_s: float = 30.0
    timeout_s: float = 60.0


class DeviceHealth:
    """What is known of the device; changed on the event loop only. `self_test` blocks, and raises when it fails."""

    def __init__(
        self, device: Device, self_test: Callable[[str], None], limits: HealthLimits, clock: Clock, changed: Signal
    ) -> None:
        self._device = device
        self._self_test = self_test
        self._limits = limits
        self._clock = clock
        self._changed = changed
        self._computed_at = clock()
        self.problem: str | None = None

    def computed(self) -> None:
        """The device has computed something."""
        self._computed_at = self._clock()
        self._set(None)

    async def watch(self) -> None:
        """Try the device whenever it was idle for an interval; until cancelled."""
        while self._limits.interval_s:
            await asyncio.sleep(self._limits.interval_s)
            if self._clock() - self._computed_at >= self._limits.interval_s:
                await self.check()

    async def check(self) -> None:
        """Try the device once."""
        asked_at, tried = self._clock(), self._try()
        done, _ = await asyncio.wait((tried,), timeout=self._limits.timeout_s)
        if not done:
            if self._computed_at <= asked_at:
                self._set(f"it has computed nothing for {self._limits.timeout_s:.0f} s")
            await asyncio.wait((tried,))
        error = tried.exception()
        if error is None:
            self.computed()
        else:
            log.error("the device failed its self-test", exc_info=error)
            self._set("it failed its self-test")

    def _try(self) -> "asyncio.Future[None]":
        test = partial(self._self_test, self._device.kind)
        if self._device.kind == "cpu":
            return asyncio.ensure_future(asyncio.to_thread(test))
        tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work = Work(lambda _: test(), lambda _: _settle(tried, None), _settler(tried))
        self._device.ask("", lambda: work)  # of no model
        return tried

    def _set(self, problem: str | None) -> None:
        if problem != self.problem:
            log.warning("device %s: %s", self._device.kind, problem or "computes")
            self.problem = problem
            self._changed.notify()


def _settler(tried: "asyncio.Future[None]") -> Callable[[BaseException], None]:
    return lambda error: _settle(tried, error)


def _settle(tried: "asyncio.Future[None]", error: BaseException | None) -> None:
    if tried.done():
        return
    if error is None:
        tried.set_result(None)
    else:
        tried.set_exception(error)
