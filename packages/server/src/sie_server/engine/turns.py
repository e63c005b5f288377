"""A batch on the device: one turn for most, several for one in steps, so that other models have theirs in between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sie_server.adapters.base import Adapter, Outputs, Prepared, RunsInSteps, Steps
from sie_server.engine.outputs import broken_rows
from sie_server.engine.recovery import Attempt

# A batch in steps lets others have their turn after so many seconds. They wait for a whole batch of any other model, so
# this is no more than what one takes that fills an accelerator.
TURN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch gave, which of its rows are no numbers, when it started and ended, and how long it computed."""

    outputs: Outputs
    broken: frozenset[int]
    started: float
    ended: float
    spent: float


@dataclass(slots=True, eq=False)
class StartedBatch:
    """A batch between its first turn and its last. Whoever has the turn writes it, so never two at a time."""

    attempt: Attempt
    steps: Steps | None = None
    started: float | None = None
    spent: float = 0.0

    def turn(self, adapter: Adapter, threads: int, clock: Callable[[], float]) -> BatchResult | None:
        """Compute until it is done, or for a turn: None says that it is to go on later. On a device thread."""
        prepared = [entry.prepared for entry in self.attempt.entries]
        began = clock()
        started = self.started = began if self.started is None else self.started
        outputs = self._outputs(adapter, prepared, threads, lambda: clock() - began < TURN_S)
        ended = clock()
        self.spent += ended - began
        if outputs is None:
            return None
        return BatchResult(outputs, broken_rows(outputs, len(prepared)), started, ended, self.spent)

    def drop(self) -> None:
        """Let go of what it holds on the device."""
        if self.steps is not None:
            self.steps.close()

    def _outputs(
        self, adapter: Adapter, prepared: Sequence[Prepared], threads: int, may_go_on: Callable[[], bool]
    ) -> Outputs | None:
        if not isinstance(adapter, RunsInSteps):
            return adapter.run(prepared, threads)
        try:
            if self.steps is None:
                self.steps = adapter.steps(prepared, threads)
                next(self.steps)
            else:
                self.steps.send(threads)
            while may_go_on():
                self.steps.send(threads)
        except StopIteration as ended:
            outputs: Outputs = ended.value
            return outputs
        return None
