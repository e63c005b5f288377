"""The device and its threads, shared by all models by the time they take. Knows no model, queue or request.

An accelerator has exactly one thread, and one more batch is staged behind the running one so that it never waits for
the event loop. A CPU is a device with one lane per core: two batches side by side on one core each do more than one
batch on two cores, because cores that work on the same product wait for each other after every step, and most of all
when something else needs one of them. A batch that starts while other lanes are idle may use their cores too.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sie_server.core.fairness import Account, next_turn

MAX_CPU_LANES: Final = 8
STAGED_ON_ACCELERATOR: Final = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One batch: `compute` runs on a device thread with so many CPU threads, the other two on the event loop."""

    compute: Callable[[int], T]
    done: Callable[[T], None]
    failed: Callable[[BaseException], None]


Dispatch = Callable[[], Work[Any] | None]


class Device:
    """Gives its slots to those who ask, by the time each has had; who asks forms its batch when the slot is free."""

    def __init__(self, kind: str, cores: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.kind = kind
        self._clock = clock
        self._cores = cores
        count = min(cores, MAX_CPU_LANES) if kind == "cpu" else 1
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"device-{at}") for at in range(count)]
        staged = 0 if kind == "cpu" else STAGED_ON_ACCELERATOR
        # A stack: the lane that was used last has warm caches and, on a CPU, helper threads that are still awake.
        self._free = self._lanes * (1 + staged)
        self._slots = len(self._free)
        self._waiting: list[tuple[str, Dispatch]] = []
        self._accounts: dict[str, Account] = {}  # one for each name that ever asked: those of the catalogue
        self._level = 0.0
        self._serving: asyncio.Handle | None = None

    @property
    def lanes(self) -> int:
        """How many batches are computed side by side."""
        return len(self._lanes)

    def ask(self, party: str, dispatch: Dispatch) -> None:
        """Have `dispatch` called once, on the event loop, when it is the party's turn; None from it passes it on."""
        self._waiting.append((party, dispatch))
        self._accounts[party] = self._accounts.get(party, Account()).joins(self._level)
        if self._serving is None and self._free:
            # Not now but after what is ready on the loop: requests that arrived together share the batch.
            self._serving = asyncio.get_running_loop().call_soon(self._serve)

    async def close(self) -> None:
        """Wait for what runs; what only waits is never started."""
        self._waiting.clear()
        for lane in self._lanes:
            await asyncio.to_thread(lane.shutdown)

    def _serve(self) -> None:
        self._serving = None
        while self._waiting and self._free:
            turn = next_turn([self._accounts[party] for party, _ in self._waiting])
            party, dispatch = self._waiting.pop(turn)
            work = dispatch()
            if work is not None:
                self._start(party, work)

    def _start(self, party: str, work: Work[Any]) -> None:
        account = self._accounts[party]
        self._level, self._accounts[party] = account.spent, account.starts()
        lane = self._free.pop()
        busy = self._slots - len(self._free)
        sharing = min(self._slots, busy + len(self._waiting)) if self.kind == "cpu" else 1
        threads = max(1, self._cores // sharing)
        took = 0.0

        def timed() -> object:
            nonlocal took
            started = self._clock()
            try:
                return work.compute(threads)
            finally:
                took = self._clock() - started

        running = asyncio.get_running_loop().run_in_executor(lane, timed)

        def finish(future: asyncio.Future[Any]) -> None:
            self._accounts[party] = self._accounts[party].ends(account.usual, took)
            self._free.append(lane)
            self._serve()
            error = future.exception()
            if error is None:
                work.done(future.result())
            else:
                work.failed(error)

        running.add_done_callback(finish)
