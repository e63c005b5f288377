"""Drives the life of each model: loads on the first request, off the event loop, and remembers what failed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sie_protocol.catalog import ModelConfig
from sie_server.adapters.base import Adapter, LoadError, ModelSpec
from sie_server.core.lifecycle import ErrorClass, State, Step, advance, may_load
from sie_server.engine.failures import class_of, failure_of
from sie_server.engine.loading import Fetched
from sie_server.engine.loop import Clock, ModelLoop
from sie_server.engine.residency import Reservation, Residency
from sie_server.engine.signal import Signal
from sie_server.engine.slots import Choice, Slot, Slots, not_there, spec_of
from sie_server.engine.threads import NoThreadError, in_thread

MAX_PARALLEL_FETCHES = 8
MAX_PARALLEL_LOADS = 4
CLOSING_S = 5.0  # how long a shutdown waits for loads; nobody is left who wants them

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadPorts:
    """The steps of a load. The first two block; `fetch` may download, `build` reads the files into memory."""

    fetch: Callable[[ModelSpec], Fetched]
    build: Callable[[Slot, Fetched], Adapter]
    open_loop: Callable[[Slot, Adapter], ModelLoop]


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """Which models are loaded before anybody asks, which never go, and after how long without use the others do.

    `idle_s` 0 means never. A load that takes longer than `load_timeout_s`, its download included, has
    failed; 0: no limit.
    """

    preload: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    idle_s: float = 0.0
    load_timeout_s: float = 1800.0


class Models:
    """All models of this worker and the tasks that load and unload them."""

    def __init__(
        self,
        slots: Slots,
        ports: LoadPorts,
        residency: Residency,
        load_policy: LoadPolicy,
        *,
        clock: Clock,
        changed: Signal,
        on_idle: Callable[[str], None],
    ) -> None:
        self._slots = slots
        self._ports = ports
        self._residency = residency
        self._load_policy = load_policy
        self._clock = clock
        self._changed = changed
        self._on_idle = on_idle
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Slot, asyncio.TimerHandle] = {}
        self._may_fetch = asyncio.Semaphore(MAX_PARALLEL_FETCHES)
        self._may_load = asyncio.Semaphore(MAX_PARALLEL_LOADS)
        self._preloading = {slots.find(name, {}).slot for name in load_policy.preload}

    @property
    def slots(self) -> Slots:
        """Every set of weights, in the catalogue's order; read only."""
        return self._slots

    @property
    def preloading(self) -> Sequence[str]:
        """Models that are still to be loaded before the worker is ready; a load that failed counts as over."""
        return sorted(slot.name for slot in self._preloading)

    def find(self, name: str, options: Mapping[str, Any]) -> Choice:
        """The model and profile that a request means.

        Raises:
            Problem: MODEL_NOT_FOUND or INVALID_INPUT.
        """
        return self._slots.find(name, options)

    def ready(self, slot: Slot) -> ModelLoop:
        """The queue of a loaded model; starts a load when there is none.

        Raises:
            Problem: MODEL_LOADING while it loads or unloads, MODEL_LOAD_FAILED when it cannot.
        """
        now = self._clock()
        if slot.outdated:
            raise not_there(slot, now)
        if slot.state is State.LOADED and slot.loop is not None:
            slot.used_at = now
            return slot.loop
        if may_load(slot.state, slot.failure, now):
            self._start(slot, now)
        raise not_there(slot, now)

    def used(self, slot: Slot) -> None:
        """A request for the model has its answer."""
        slot.used_at = self._clock()

    def adopt(self, models: Mapping[str, ModelConfig]) -> None:
        """Have these models instead; see `Engine.adopt`."""
        for slot in self._slots.adopt(models):
            log.info("model %s %s", slot.name, "is gone from the catalogue" if slot.wanted is None else "has changed")
            if slot.state in (State.AVAILABLE, State.FAILED):
                self._renewed(slot)
            else:
                self._go_on(self._renew(slot), f"renew {slot.name}")
        self._changed.notify()

    def preload(self) -> None:
        """Start the loads that readiness waits for."""
        for slot in tuple(self._preloading):
            if slot.state is State.AVAILABLE:
                self._start(slot, self._clock())

    async def close(self) -> None:
        """Close every queue, wait a little for loads that run, and drop all weights."""
        for timer in self._timers.values():
            timer.cancel()
        for slot in self._slots:
            if slot.loop is not None:
                await slot.loop.stop()
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=CLOSING_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        adapters = [slot.loop.adapter for slot in self._slots if slot.loop is not None]
        await self._residency.close()
        for adapter in adapters:
            adapter.unload()

    def _start(self, slot: Slot, now: float) -> None:
        slot.state = advance(slot.state, Step.LOAD)
        slot.attempts += 1
        slot.loading_since = now
        self._go_on(self._run(slot), f"load {slot.name}")
        self._changed.notify()

    def _go_on(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew(self, slot: Slot) -> None:
        """Drop what an outdated slot holds, then load what is wanted in its place."""
        while slot.state is State.LOADING:
            await self._changed.changed(self._changed.version)
        was_used = slot.state in (State.LOADED, State.FAILED)
        if slot.state in (State.LOADED, State.UNLOADING):
            await asyncio.shield(self._residency.unload(slot))
        if self._renewed(slot) and was_used:
            self._start(slot, self._clock())
        self._changed.notify()

    def _renewed(self, slot: Slot) -> bool:
        is_wanted = self._slots.renew(slot)
        if not is_wanted:
            self._preloading.discard(slot)
        return is_wanted

    async def _run(self, slot: Slot) -> None:
        try:
            async with asyncio.timeout(self._load_policy.load_timeout_s or None):
                adapter = await self._load(slot)
        except Exception as error:
            log.exception("model %s did not load", slot.name)
            slot.failure = failure_of(error, slot.attempts, self._clock(), self._load_policy.load_timeout_s)
            slot.state, slot.size_bytes = advance(slot.state, Step.FAIL), 0
        else:
            now = self._clock()
            slot.loop = self._ports.open_loop(slot, adapter)
            slot.state, slot.failure = advance(slot.state, Step.LOADED), None
            slot.loaded_at = slot.used_at = now
            self._watch_idle(slot)
            log.info("model %s loaded in %.2f s", slot.name, now - slot.loading_since)
        if not slot.outdated:
            self._preloading.discard(slot)
        self._changed.notify()

    async def _load(self, slot: Slot) -> Adapter:
        fetched, room = await self._fetch(slot)
        try:
            return await self._build(slot, fetched, room)
        except (LoadError, MemoryError) as error:
            if class_of(error) is not ErrorClass.OOM or not await self._residency.evict_other(slot.name):
                raise
        return await self._build(slot, *await self._fetch(slot))

    async def _fetch(self, slot: Slot) -> tuple[Fetched, Reservation]:
        """Have the files here and room for what they hold; a slow download holds no room."""
        async with self._may_fetch:
            fetched = await in_thread(partial(self._ports.fetch, spec_of(slot.model)), late=lambda late: late.release())
        try:
            room = await self._residency.reserve(fetched.size_bytes)
        except BaseException:
            fetched.release()
            raise
        slot.size_bytes = fetched.size_bytes
        return fetched, room

    async def _build(self, slot: Slot, fetched: Fetched, room: Reservation) -> Adapter:
        """The room stays reserved until the thread has ended, even when nobody waits for it any more."""
        is_started = False
        try:
            async with self._may_load:
                is_started = True
                return await in_thread(
                    partial(self._ports.build, slot, fetched),
                    late=lambda adapter: adapter.unload(),
                    ended=partial(self._residency.settle, room),
                )
        except NoThreadError:
            fetched.release()
            raise
        finally:
            if not is_started:
                self._residency.settle(room)
                fetched.release()

    def _watch_idle(self, slot: Slot) -> None:
        if slot in self._timers:
            self._timers.pop(slot).cancel()
        if self._load_policy.idle_s and not slot.is_pinned:
            wait_s = max(0.0, slot.used_at + self._load_policy.idle_s - self._clock())
            self._timers[slot] = asyncio.get_running_loop().call_later(wait_s, self._end_idle, slot)

    def _end_idle(self, slot: Slot) -> None:
        del self._timers[slot]
        if slot.state is not State.LOADED:
            return
        if slot.depth:
            slot.used_at = self._clock()
        if self._clock() - slot.used_at < self._load_policy.idle_s:
            self._watch_idle(slot)
            return
        log.info("model %s goes: nobody used it for %.0f s", slot.name, self._load_policy.idle_s)
        self._on_idle(slot.name)
        self._residency.unload(slot)
