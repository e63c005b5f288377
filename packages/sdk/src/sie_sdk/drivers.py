"""What drivers of threads and of asyncio share. A driver runs flows: nothing else sends, sleeps or tells the time."""

import logging
import random
import time

from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION, is_skewed
from sie_sdk.errors import SIEConnectionError, SIEError
from sie_sdk.leases import Change
from sie_sdk.messages import Loss, Lost, OnWait, Outcome, Resume, WaitEvent

_log = logging.getLogger("sie_sdk")


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


def resume(outcome: Outcome | None = None, results: tuple[object, ...] = ()) -> Resume:
    """What a flow is told after an effect."""
    return Resume(time.monotonic(), draw(), outcome, results)


def draw() -> float:
    """A random number in [0, 1)."""
    return random.random()  # noqa: S311 - spreads retries, guards nothing


def tell(on_wait: OnWait | None, event: WaitEvent) -> None:
    """Tell of a wait before it begins."""
    _log.debug("%s", event)
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
