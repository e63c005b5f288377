"""Drives the life of each model: loads on the first request, off the event loop, and remembers what failed."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import Adapter, LoadError, ModelSpec, WeightsSource
from sie_server.core.lifecycle import ErrorClass, Failure, State, Step, advance, loading_retry_after_s, may_load
from sie_server.core.options import load_options
from sie_server.engine.loop import Clock, ModelLoop

MAX_PARALLEL_LOADS = 4
CLOSING_S = 5.0  # how long a shutdown waits for loads; nobody is left who wants them

log = logging.getLogger(__name__)


def spec_of(model: ModelConfig) -> ModelSpec:
    """What an adapter is told about a model of the catalogue."""
    profile = model.profiles[DEFAULT_PROFILE]
    return ModelSpec(
        name=model.sie_id,
        source=WeightsSource(
            model.weights_path, model.weights_package, model.hf_id, model.hf_revision, model.allow_pickle
        ),
        dims=model.dims,
        options=load_options(profile),
        max_sequence_length=model.max_sequence_length,
        precision=profile.compute_precision,
    )


@dataclass(slots=True, eq=False)
class Slot:
    """One model of this worker; written by `Models` on the event loop's thread only."""

    model: ModelConfig
    state: State = State.AVAILABLE
    loop: ModelLoop | None = None
    failure: Failure | None = None
    attempts: int = 0
    loading_since: float = 0.0


Build = Callable[[ModelConfig], Adapter]
Open = Callable[[ModelConfig, Adapter], ModelLoop]


class Models:
    """All models of this worker and the tasks that load them.

    `load` builds and loads an adapter and blocks; `open_loop` gives a loaded adapter its queue.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        load: Build,
        open_loop: Open,
        *,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._slots = {name: Slot(model) for name, model in models.items()}
        self._load = load
        self._open_loop = open_loop
        self._clock = clock
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_load = asyncio.Semaphore(MAX_PARALLEL_LOADS)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every model, in the catalogue's order; read only."""
        return tuple(self._slots.values())

    def find(self, name: str) -> Slot:
        """The model with this id in any spelling.

        Raises:
            Problem: MODEL_NOT_FOUND.
        """
        slot = self._slots.get(name.lower())
        base, _, profile = name.partition(":")
        if slot is None and profile and base.lower() in self._slots:
            raise Problem(
                ErrorCode.MODEL_NOT_FOUND,
                f"'{name[:200]}' names a profile of model '{base}'; ask for '{base}' and set options.profile",
                details={"model": name[:200]},
            )
        if slot is None:
            raise Problem(
                ErrorCode.MODEL_NOT_FOUND,
                f"this worker has no model '{name[:200]}'; GET /v1/models lists what it has",
                details={"model": name[:200]},
            )
        return slot

    def ready(self, slot: Slot) -> ModelLoop:
        """The queue of a loaded model; starts a load when there is none.

        Raises:
            Problem: MODEL_LOADING while it loads, MODEL_LOAD_FAILED when it cannot.
        """
        if slot.loop is not None:
            return slot.loop
        now = self._clock()
        if may_load(slot.state, slot.failure, now):
            self._start(slot, now)
        if slot.state is State.FAILED and slot.failure is not None:
            raise _load_failed(slot.model, slot.failure)
        raise Problem(
            ErrorCode.MODEL_LOADING,
            f"model '{slot.model.sie_id}' is loading on this worker; try again",
            retry_after_s=loading_retry_after_s(now - slot.loading_since),
            details={"model": slot.model.sie_id},
        )

    async def close(self) -> None:
        """Close every queue, wait a little for loads that run, and drop all weights."""
        for slot in self._slots.values():
            if slot.loop is not None:
                slot.loop.close()
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=CLOSING_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for slot in self._slots.values():
            if slot.loop is not None:
                slot.loop.adapter.unload()

    def _start(self, slot: Slot, now: float) -> None:
        slot.state = advance(slot.state, Step.LOAD)
        slot.attempts += 1
        slot.loading_since = now
        task = asyncio.get_running_loop().create_task(self._run(slot), name=f"load {slot.model.sie_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed()

    async def _run(self, slot: Slot) -> None:
        name = slot.model.sie_id
        try:
            async with self._may_load:
                adapter = await _in_thread(lambda: self._load(slot.model))
        except Exception as error:
            log.exception("model %s did not load", name)
            slot.failure = Failure(_class_of(error), _message_of(error), slot.attempts, self._clock())
            slot.state = advance(slot.state, Step.FAIL)
        else:
            slot.loop = self._open_loop(slot.model, adapter)
            slot.state, slot.failure = advance(slot.state, Step.LOADED), None
            log.info("model %s loaded in %.2f s", name, self._clock() - slot.loading_since)
        self._changed()


async def _in_thread(work: Callable[[], Adapter]) -> Adapter:
    """Run in a thread that the process does not wait for at exit: a download cannot be interrupted."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Adapter] = loop.create_future()

    def settle(adapter: Adapter | None, error: BaseException | None) -> None:
        if result.done():
            return
        if adapter is None:
            result.set_exception(error or RuntimeError("a load gave neither an adapter nor an error"))
        else:
            result.set_result(adapter)

    def run() -> None:
        try:
            outcome: tuple[Adapter | None, BaseException | None] = work(), None
        except BaseException as error:  # noqa: BLE001 - it is raised again where the load is awaited
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await result


def _class_of(error: Exception) -> ErrorClass:
    if isinstance(error, LoadError):
        return error.error_class
    if isinstance(error, ImportError):
        return ErrorClass.DEPENDENCY
    return ErrorClass.OOM if isinstance(error, MemoryError) else ErrorClass.UNKNOWN


def _message_of(error: Exception) -> str:
    """Only texts written for callers leave the worker; the log has the rest."""
    return str(error) if isinstance(error, LoadError) else "an unexpected error; the worker's log says which"


def _load_failed(model: ModelConfig, failure: Failure) -> Problem:
    return Problem(
        ErrorCode.MODEL_LOAD_FAILED,
        f"model '{model.sie_id}' cannot be loaded: {failure.message}",
        details={
            "model": model.sie_id,
            "error_class": str(failure.error_class),
            "attempts": failure.attempts,
            "permanent": failure.permanent,
        },
    )
