"""Memory of the device: reserved before a load starts, made by unloading others, given back to the system after.

Everything that decides runs on the event loop's thread, so a decision and its reservation are one step; unloading
itself runs in threads. Readings count what loads have taken so far, reservations what they may take: while one is
being filled both count the same bytes, so nobody is unloaded before loads that run have ended.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from sie_server.adapters.base import Adapter, LoadError
from sie_server.core.lifecycle import ErrorClass, State, Step, advance
from sie_server.core.memory import Evict, Fits, Impossible, Plan, Reading, Resident, Wait, first_to_go, make_room
from sie_server.engine.loop import Clock
from sie_server.engine.signal import Signal
from sie_server.engine.slots import Slot, Slots
from sie_server.engine.threads import in_thread

log = logging.getLogger(__name__)

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class MemoryPorts:
    """How memory is read (None: unknown), and how what is only cached goes back to the system, which blocks."""

    read: Callable[[], Reading | None] = lambda: None
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How full a device may get, in percent, and how long a model that is unloaded may finish what it accepted."""

    threshold_percent: float = 85.0
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """What one load may take. A load that was given up keeps its room until its thread ends, beside any later one's."""

    need_bytes: int


class Residency:
    """Who is in memory, and who goes when another one needs it."""

    def __init__(self, slots: Slots, limits: MemoryLimits, ports: MemoryPorts, clock: Clock, changed: Signal) -> None:
        self._slots = slots
        self._limits = limits
        self._ports = ports
        self._clock = clock
        self._changed = changed
        self._reserved: set[Reservation] = set()
        self._unloading: dict[Slot, asyncio.Task[None]] = {}
        self._moved = Signal()  # something was loaded or unloaded

    async def reserve(self, need_bytes: int, *, keep: Slot | None = None) -> Reservation:
        """Return when the device has room for a model or a LoRA, which is held until `settle`.

        `keep` does not go for it.

        Raises:
            LoadError: OOM when it does not fit even with everything else gone that may go.
        """
        is_cleared = False
        while True:
            plan = self._plan(need_bytes, keep)
            if isinstance(plan, Fits):
                room = Reservation(need_bytes)
                self._reserved.add(room)
                return room
            if self._reserved or self._unloading:
                await self._moved.changed(self._moved.version)
            elif not is_cleared:
                is_cleared = True
                await in_thread(self._ports.release)
            else:
                await self._carry_out(plan, need_bytes)

    def settle(self, room: Reservation) -> None:
        """The load is over: what it took is part of every reading from now on."""
        self._reserved.remove(room)
        self._moved.notify()

    def unload(self, slot: Slot) -> asyncio.Task[None]:
        """Have a loaded model finish what it accepted, then drop its weights; the task ends when they are gone."""
        if slot not in self._unloading:
            slot.state = advance(slot.state, Step.UNLOAD)
            task = asyncio.get_running_loop().create_task(self._unload(slot), name=f"unload {slot.name}")
            self._unloading[slot] = task
            self._changed.notify()
        return self._unloading[slot]

    async def evict_other(self, than: str) -> bool:
        """Unload the idle model that was used least recently, other than the named one; False when there is none."""
        name = first_to_go(each for each in self._residents() if each.name != than)
        if name is None:
            return False
        log.warning("model %s goes: the device ran out of memory for %s", name, than)
        await asyncio.shield(self.unload(self._slot(name)))
        return True

    async def clear(self) -> None:
        """Free what is only cached."""
        await in_thread(self._ports.release)

    async def close(self) -> None:
        """End what unloads; the caller drops all weights itself."""
        tasks = list(self._unloading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _plan(self, need_bytes: int, keep: Slot | None) -> Plan:
        reading = self._ports.read()
        if reading is None or not need_bytes:
            return Fits()
        free = reading.free_bytes(self._limits.threshold_percent) - sum(each.need_bytes for each in self._reserved)
        return make_room(self._residents(keep), free, need_bytes, self._clock())

    async def _carry_out(self, plan: Plan, need_bytes: int) -> None:
        match plan:
            case Evict(names):
                log.info("unloading %s to make room for %d MB", ", ".join(names), need_bytes // MB)
                await asyncio.gather(*(asyncio.shield(self.unload(self._slot(name))) for name in names))
            case Wait(until):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(until - self._clock()):
                        await self._moved.changed(self._moved.version)
            case Impossible(missing):
                raise LoadError(
                    ErrorClass.OOM,
                    f"it needs {need_bytes // MB} MB, which is {missing // MB + 1} MB more than there are when "
                    "every other model is gone that may go; give the worker more memory or pin less",
                )
            case Fits():
                pass
            case _:
                assert_never(plan)

    def _residents(self, keep: Slot | None = None) -> list[Resident]:
        return [
            Resident(slot.name, slot.held_bytes, slot.used_at, slot.loaded_at, slot.is_pinned, slot.depth > 0)
            for slot in self._slots
            if slot.state is State.LOADED and slot is not keep
        ]

    def _slot(self, name: str) -> Slot:
        return next(slot for slot in self._slots if slot.name == name)

    async def _unload(self, slot: Slot) -> None:
        assert slot.loop is not None, "a loaded model has a queue"  # noqa: S101 - a bug, not a refusal
        try:
            await slot.loop.drain(self._limits.drain_s)
            slot.loras.clear()
            await in_thread(_dropping(slot.loop.adapter, self._ports.release))
        except Exception:  # whoever made room with it goes on, and finds out whether there is some
            log.exception("model %s did not unload in order", slot.name)
        finally:
            slot.loop, slot.size_bytes, slot.loras = None, 0, {}
            slot.state = advance(slot.state, Step.UNLOADED)
            del self._unloading[slot]
            self._moved.notify()
            self._changed.notify()
        log.info("model %s unloaded", slot.name)


def _dropping(adapter: Adapter, release: Callable[[], None]) -> Callable[[], None]:
    def drop() -> None:
        adapter.unload()
        release()

    return drop
