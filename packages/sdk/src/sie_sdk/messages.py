"""The values that pass between a call, its flow and its driver.

A flow yields effects (`Send`, `Sleep`) and is resumed with what happened. Knows nothing of HTTP libraries or clocks.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

ACCEPTED = 202


class Loss(StrEnum):
    """Why no answer arrived. The values also serve as codes of errors and of wait events."""

    CONNECT_FAILED = "CONNECT_FAILED"
    CONNECT_IMPOSSIBLE = "CONNECT_IMPOSSIBLE"  # an unknown host or a bad certificate: another attempt meets the same
    TIMED_OUT = "TIMED_OUT"
    CONNECTION_LOST = "CONNECTION_LOST"
    CLIENT_CLOSED = "CLIENT_CLOSED"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `path` is percent-encoded and starts below the base URL."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __str__(self) -> str:
        named = unquote(self.path)
        return f"{self.method} {named if named.isprintable() else self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response. Header names are lower case; `received_at` is Unix seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float = 0.0

    @property
    def is_success(self) -> bool:
        """True for an answer that carries a result; 202 only says that one is being prepared."""
        return self.status // 100 == 2 and self.status != ACCEPTED  # noqa: PLR2004 - the class of success

    @property
    def content_type(self) -> str:
        """Media type of the body, empty when the server does not say."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer arrived; `reason` is for people."""

    loss: Loss
    reason: str


Outcome = Answer | Lost


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """Told to `on_wait` before each wait.

    `reason` is a code (PROVISIONING, MODEL_LOADING, CONNECT_FAILED, ...), `message` what the server or the system said,
    `attempt` the number of requests sent so far and `elapsed_s` the time since the call began. `held`: the router keeps
    the request, so that the wait ends before `delay_s` if a worker can serve it earlier.
    """

    reason: str
    message: str
    delay_s: float
    attempt: int
    elapsed_s: float
    held: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request once and resume with its outcome after at most `timeout_s`."""

    request: Request
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Tell `event` to whoever listens, then resume after `event.delay_s`."""

    event: WaitEvent


@dataclass(frozen=True, slots=True)
class Park:
    """Tell `event` and send `send`, which the router keeps until somebody can serve it; resume with its outcome.

    If this client has another request for the same `key` kept already, or enough of them, nothing is sent: `instead`
    happens, which ends early when the one for this key brought news; resume without an outcome.
    """

    send: Send
    event: WaitEvent
    instead: Sleep
    key: "ParkKey"


@dataclass(frozen=True, slots=True)
class Pause:
    """Resume after `delay_s` without telling anybody: nobody waits for this flow."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Parallel:
    """Run these plans, at most `limit` at a time and in this order, and resume with what became of each.

    After a failure no further plan begins. `on_done` is called with the place of each plan that succeeded, one call at
    a time; what it raises ends the call.
    """

    plans: "tuple[Plan[Any], ...]"
    limit: int
    on_done: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Resume:
    """What a driver hands back: the monotonic time, a fresh random number in [0, 1) and what became of the effect.

    `outcome` is that of a Send, or of a Park that was sent. `results` are those of a Parallel in order: a result, an
    SIEError, or None for a plan that did not begin.
    """

    now: float
    draw: float
    outcome: Outcome | None = None
    results: tuple[Any, ...] = ()


ParkKey = tuple[str, str]  # target and model: who has the same waits for the same
Effect = Send | Sleep | Park | Pause | Parallel
Flow = Generator[Effect, Resume, T]
Plan = Callable[[float], Flow[T]]  # a call ready to begin at a monotonic time
OnWait = Callable[[WaitEvent], None]
OnProgress = Callable[[int, int], None]  # items done, items in all
