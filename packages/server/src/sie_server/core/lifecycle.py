"""The life of one model on one worker, as a table. Knows nothing of how models are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MAX_RETRY_AFTER_S: Final = 5.0


class State(StrEnum):
    """What a worker says about a model."""

    AVAILABLE = "available"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    FAILED = "failed"


class Step(StrEnum):
    """What can happen to a model."""

    LOAD = "load"
    LOADED = "loaded"
    FAIL = "fail"
    UNLOAD = "unload"
    UNLOADED = "unloaded"


TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = MappingProxyType(
    {
        (State.AVAILABLE, Step.LOAD): State.LOADING,
        (State.LOADING, Step.LOADED): State.LOADED,
        (State.LOADING, Step.FAIL): State.FAILED,
        (State.FAILED, Step.LOAD): State.LOADING,
        (State.LOADED, Step.UNLOAD): State.UNLOADING,
        (State.UNLOADING, Step.UNLOADED): State.AVAILABLE,
    }
)


class ErrorClass(StrEnum):
    """Why a load failed."""

    GATED = "GATED"
    NOT_FOUND = "NOT_FOUND"
    DEPENDENCY = "DEPENDENCY"
    NETWORK = "NETWORK"
    OOM = "OOM"
    TIMEOUT = "TIMEOUT"
    UNKNOWN = "UNKNOWN"


# Classes that pass by themselves, and after how many seconds another attempt makes sense. The others stay until the
# worker is restarted with something changed.
COOL_DOWN_S: Final[Mapping[ErrorClass, float]] = MappingProxyType(
    {ErrorClass.NETWORK: 30.0, ErrorClass.OOM: 60.0, ErrorClass.TIMEOUT: 60.0}
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A remembered failed load. `failed_at` is monotonic; `attempts` counts loads since the worker started."""

    error_class: ErrorClass
    message: str
    attempts: int
    failed_at: float

    @property
    def permanent(self) -> bool:
        """True when trying again on this worker cannot help."""
        return self.error_class not in COOL_DOWN_S


def advance(state: State, step: Step) -> State:
    """The state after a step; a step that the table lacks is a bug of the caller."""
    assert (state, step) in TRANSITIONS, f"a model that is {state} cannot {step}"  # noqa: S101 - a bug, not a refusal
    return TRANSITIONS[state, step]


def may_load(state: State, failure: Failure | None, now: float) -> bool:
    """True when a request for the model should start a load."""
    if state is State.AVAILABLE:
        return True
    if state is not State.FAILED or failure is None or failure.permanent:
        return False
    return now - failure.failed_at >= COOL_DOWN_S[failure.error_class]


def loading_retry_after_s(elapsed_s: float) -> float:
    """When to ask again for a model that has been loading for so long: a load that took long may take longer."""
    return min(max(float(round(elapsed_s)), 1.0), MAX_RETRY_AFTER_S)
