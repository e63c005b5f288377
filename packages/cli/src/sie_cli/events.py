"""What happens in a local cluster, as values: the command line prints them, tests wait for them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path

from sie_cli.scaler import Change


class Phase(StrEnum):
    """Stations of one process. LISTENING: it answers at all; READY: it says that it can serve; SLOW: not yet."""

    STARTED = auto()
    LISTENING = auto()
    SLOW = auto()
    READY = auto()
    CRASHED = auto()
    STOPPING = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """A process came to a station. `at`: monotonic seconds; `status`: exit status, negative for a signal."""

    name: str
    phase: Phase
    at: float
    pid: int
    url: str
    log: Path
    status: int | None = None
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A pool changes its size."""

    pool: str
    change: Change
    at: float


Event = ProcessEvent | ScaleEvent
Emit = Callable[[Event], None]
