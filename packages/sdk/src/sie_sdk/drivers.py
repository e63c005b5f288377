"""What drivers of threads and of asyncio share. A driver runs flows: nothing else sends, sleeps or tells the time."""

import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION, is_skewed
from sie_sdk.errors import SIEConnectionError, SIEError
from sie_sdk.leases import Change
from sie_sdk.messages import Loss, Lost, OnWait, Outcome, Resume, WaitEvent

if TYPE_CHECKING:
    import asyncio
    import threading

_log = logging.getLogger("sie_sdk")
Wait = TypeVar("Wait", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Clock(Generic[Wait]):
    """Where a driver has time and chance from. Tests have another one, so that no wait is waited for.

    `wait(closed, delay_s)` tells whether the client was closed within `delay_s`; `now` is monotonic seconds, `draw` a
    random number in [0, 1) that spreads retries.
    """

    wait: Wait
    now: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random

    def resume(self, outcome: Outcome | None = None, results: tuple[object, ...] = ()) -> Resume:
        """What a flow is told after an effect."""
        return Resume(self.now(), self.draw(), outcome, results)


SyncClock = Clock[Callable[["threading.Event", float], bool]]
AsyncClock = Clock[Callable[["asyncio.Event", float], Awaitable[bool]]]


class SkewWarning:
    """Warns once per client when the server's version is too far from ours; never fails a call."""

    def __init__(self) -> None:
        self._is_done = False

    def seen(self, outcome: Outcome) -> Outcome:
        """Look at one outcome and hand it on."""
        if not self._is_done and not isinstance(outcome, Lost) and outcome.is_success:
            self._is_done = True
            theirs = outcome.headers.get(SERVER_VERSION.lower())
            if is_skewed(VERSION, theirs):
                _log.warning(
                    "server version %s is far from SDK version %s; align them to avoid surprises", theirs, VERSION
                )
        return outcome


def tell(on_wait: OnWait | None, event: WaitEvent) -> None:
    """Tell of a wait before it begins."""
    _log.info("%s", event)
    if on_wait is not None:
        on_wait(event)


def tell_lease(pool: str, change: Change, error: SIEError | None) -> None:
    """Log what became of a pool's lease."""
    match change:
        case Change.FAILING:
            _log.warning("the lease of pool '%s' cannot be renewed, trying on: %s", pool, error)
        case Change.CREATED_ANEW:
            _log.warning("pool '%s' was gone and was made anew", pool)
        case Change.RECOVERED:
            _log.info("the lease of pool '%s' is renewed again", pool)


def closed_while(what: str) -> SIEConnectionError:
    """The error of a call whose client was closed meanwhile."""
    return SIEConnectionError(f"the client was closed while {what}; create a new client", code=Loss.CLIENT_CLOSED)
