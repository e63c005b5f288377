"""The LoRAs on top of loaded models: each loads on its first request, and the least recently used makes room.

What a LoRA is, only the adapter knows that read it. Everything here runs on the event loop's thread but reading files.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sie_protocol.catalog import DEFAULT_PROFILE, LoraConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import HasTasks, LoadError, ModelSpec, TakesLoras, WeightsSource
from sie_server.core.lifecycle import ErrorClass, State, Step, advance, may_load
from sie_server.core.tasks import BySide
from sie_server.engine.failures import failure_of, load_failed
from sie_server.engine.loading import Fetched
from sie_server.engine.loop import Clock, ModelLoop
from sie_server.engine.residency import Residency
from sie_server.engine.signal import Signal
from sie_server.engine.slots import Choice, LoraSlot, Slot
from sie_server.engine.threads import in_thread

MAX_PARALLEL_LOADS: Final = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoraLimits:
    """How many LoRAs one model holds at most, and how long the load of one may take; 0 s: no limit."""

    per_model: int = 10
    load_timeout_s: float = 1800.0


class Loras:
    """All LoRAs of this worker and the tasks that load them. `fetch` blocks and may download."""

    def __init__(
        self,
        fetch: Callable[[ModelSpec], Fetched],
        residency: Residency,
        limits: LoraLimits,
        preload: Iterable[Choice] = (),
        *,
        clock: Clock,
        changed: Signal,
    ) -> None:
        self._fetch = fetch
        self._residency = residency
        self._limits = limits
        self._clock = clock
        self._changed = changed
        self._may_load = asyncio.Semaphore(MAX_PARALLEL_LOADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._preloading = {choice.name: choice for choice in preload if choice.lora is not None}

    @property
    def preloading(self) -> Sequence[str]:
        """Those that are still to be loaded before the worker is ready; a load that failed counts as over."""
        return sorted(self._preloading)

    def preload(self, is_coming: Callable[[Slot], bool]) -> None:
        """Load those that readiness waits for, each once its model `is_coming` no more."""
        for choice in self._preloading.values():
            self._go_on(self._preload(choice, is_coming), f"preload the LoRA of {choice.name}")

    @contextmanager
    def held(self, choice: Choice) -> Iterator[BySide[Any]]:
        """The LoRAs of a request's query and documents, which stay until it is answered; its model is loaded.

        The one of its profile is for both; without one they are those of its tasks, which are part of the weights.

        Raises:
            Problem: LORA_LOADING while it loads, MODEL_LOAD_FAILED when it cannot, QUEUE_FULL when all that the model
                may hold are in use.
        """
        if choice.lora is None:
            yield _of_tasks(choice)
            return
        own = self._ready(choice, choice.lora)
        own.users += 1
        try:
            yield BySide(own.value, own.value)
        finally:
            own.users -= 1
            own.used_at = self._clock()

    async def close(self) -> None:
        """End every load."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ready(self, choice: Choice, lora: LoraConfig) -> LoraSlot:
        own = choice.slot.loras.get(lora) or LoraSlot(lora)
        if own.state is State.LOADED:
            return own
        if may_load(own.state, own.failure, self._clock()):
            self._make_room(choice)
            choice.slot.loras[lora] = own
            self._start(choice, own)
        if own.state is State.FAILED and own.failure is not None:
            raise load_failed(choice.name, own.failure)
        raise Problem(
            ErrorCode.LORA_LOADING,
            f"the LoRA of '{choice.name}' is loading on this worker; try again",
            details={"model": choice.name},
        )

    def _make_room(self, choice: Choice) -> None:
        """Drop the idle LoRA that was used least recently, if the model holds as many as it may."""
        slot, wanted = choice.slot, {profile.lora for profile in choice.model.profiles.values()}
        for lora in [lora for lora, own in slot.loras.items() if own.state is State.FAILED and lora not in wanted]:
            del slot.loras[lora]  # the catalogue has it no more
        held = [own for own in slot.loras.values() if own.state is not State.FAILED]
        if len(held) < self._limits.per_model:
            return
        idle = [own for own in held if own.state is State.LOADED and not own.users]
        if not idle:
            raise Problem(
                ErrorCode.QUEUE_FULL,
                f"model '{slot.name}' holds {len(held)} LoRAs, which is the limit, and all are in use; try again",
            )
        goes = min(idle, key=lambda own: own.used_at)
        del slot.loras[goes.lora]
        log.info("LoRA %s of model %s goes: it was used least recently", goes.lora.name, slot.name)

    def _start(self, choice: Choice, own: LoraSlot) -> None:
        loop = choice.slot.loop
        assert loop is not None, "a LoRA goes on top of a loaded model"  # noqa: S101 - a bug of the caller
        own.state, own.attempts = advance(own.state, Step.LOAD), own.attempts + 1
        self._go_on(self._run(choice, own, loop), f"load the LoRA of {choice.name}")
        self._changed.notify()

    def _go_on(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _preload(self, choice: Choice, is_coming: Callable[[Slot], bool]) -> None:
        while is_coming(choice.slot):
            await self._changed.changed(self._changed.version)
        if choice.lora is not None and choice.slot.state is State.LOADED:
            with suppress(Problem):  # that it is loading now
                self._ready(choice, choice.lora)
            own = choice.slot.loras.get(choice.lora)
            while own is not None and own.state is State.LOADING:
                await self._changed.changed(self._changed.version)
        del self._preloading[choice.name]
        self._changed.notify()

    async def _run(self, choice: Choice, own: LoraSlot, loop: ModelLoop) -> None:
        started, slot = self._clock(), choice.slot
        try:
            async with asyncio.timeout(self._limits.load_timeout_s or None):
                value = await self._load(choice, own, loop)
        except Exception as error:
            if _is_on(slot, own, loop):
                log.exception("the LoRA of %s did not load", choice.name)
            own.failure = failure_of(error, own.attempts, self._clock(), self._limits.load_timeout_s)
            own.state, own.size_bytes = advance(own.state, Step.FAIL), 0
        else:
            own.state, own.failure, own.used_at = advance(own.state, Step.LOADED), None, self._clock()
            if _is_on(slot, own, loop):  # else the model went meanwhile, and what was read of no use
                own.value = value
                log.info("the LoRA of %s loaded in %.2f s", choice.name, own.used_at - started)
        finally:
            self._changed.notify()

    async def _load(self, choice: Choice, own: LoraSlot, loop: ModelLoop) -> Any:
        adapter = loop.adapter
        if not isinstance(adapter, TakesLoras):
            name = choice.model.profiles[DEFAULT_PROFILE].adapter
            raise LoadError(ErrorClass.DEPENDENCY, f"models of adapter '{name}' are not run with LoRAs")
        async with self._may_load:
            spec = _spec_of(choice, own.lora)
            fetched = await in_thread(partial(self._fetch, spec), late=lambda late: late.release())
            try:
                room = await self._residency.reserve(fetched.size_bytes, keep=choice.slot)
                own.size_bytes = fetched.size_bytes
                read = partial(adapter.read_lora, fetched.spec.source.path or "")
                return await in_thread(read, ended=partial(self._residency.settle, room))
            finally:
                fetched.release()


def _of_tasks(choice: Choice) -> BySide[Any]:
    tasks, loop = choice.tasks, choice.slot.loop
    if tasks == BySide() or loop is None:
        return BySide()
    adapter = loop.adapter
    assert isinstance(adapter, HasTasks), "a load refuses tasks of any other"  # noqa: S101 - a bug of the loading
    return BySide(*(None if task is None else adapter.lora_of_task(task) for task in tasks))


def _is_on(slot: Slot, own: LoraSlot, loop: ModelLoop) -> bool:
    """False when the model was unloaded meanwhile, and perhaps loaded again."""
    return slot.loop is loop and slot.loras.get(own.lora) is own


def _spec_of(choice: Choice, lora: LoraConfig) -> ModelSpec:
    source = WeightsSource(path=lora.weights_path, hf_id=lora.hf_id, hf_revision=lora.hf_revision, lora=True)
    precision = choice.model.profiles[DEFAULT_PROFILE].compute_precision
    return ModelSpec(choice.name, source, {}, {}, precision=precision)
