"""A whole cluster as child processes of this one: routers, and workers that come and go by pool size.

Runs the commands that containers run. Knows how to start and stop; how many workers a pool should have is decided
elsewhere.
"""

import asyncio
import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from sie_cli import clusterfile, logs, programs
from sie_cli.clusterfile import ClusterFile, Pool
from sie_cli.events import Emit, Event, Phase, ProcessEvent
from sie_cli.ports import Ports
from sie_cli.process import Factory, Place, Program, Slot
from sie_cli.programs import Executables
from sie_cli.settings import Settings

WORKER_GRACE_S = 30.0  # scale-in: a worker may finish what it accepted
SHUTDOWN_GRACE_S = 10.0  # the whole cluster ends: nobody waits longer than this
ROUTER_START_S = 60.0  # a cold disk and a busy laptop included


class ClusterError(RuntimeError):
    """The cluster cannot run; the message ends with the last lines of the log that tells why."""


class Cluster:
    """Use as an async context manager: on entry the routers are ready, on exit nothing is left."""

    def __init__(self, file: ClusterFile, settings: Settings, executables: Executables, emit: Emit) -> None:
        self.pools = clusterfile.pools(file)
        self.token = settings.token
        self.run_dir = Path(tempfile.mkdtemp(prefix="sie-", dir=settings.runs))
        self._file = file
        self._settings = settings
        self._executables = executables
        self._emit = emit
        self._ports = Ports()
        self._http = httpx.AsyncClient(trust_env=False)
        self._tasks: list[asyncio.Task[None]] = []
        self._routers: list[Slot] = []
        self._workers: Mapping[str, tuple[Slot, ...]] = {}
        self._first_crash: asyncio.Future[ProcessEvent] = asyncio.get_running_loop().create_future()
        self._routers_ready = asyncio.Event()
        self._keep_logs = False

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of the routers; the first is the one to tell users."""
        return tuple(slot.place.url for slot in self._routers)

    def size(self, pool: str) -> int:
        """How many workers of the pool are wanted."""
        return sum(slot.is_wanted for slot in self._workers[pool])

    def scale(self, pool: str, replicas: int) -> None:
        """Want this many workers of a pool. The lowest ordinal starts first, the highest leaves first."""
        slots = self._workers[pool]
        for slot in slots[:replicas]:
            slot.want(True)
        for slot in reversed(slots[replicas:]):
            slot.want(False)

    async def failure(self) -> None:
        """Wait for the one thing that must not happen, a supervisor that ends, and raise what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def __aenter__(self) -> Self:
        try:
            self._build()
            self._tasks = [asyncio.create_task(slot.run(), name=slot.place.name) for slot in self._slots]
            for slot in self._routers:
                slot.want(True)
            await self._await_routers()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def _slots(self) -> tuple[Slot, ...]:
        return (*self._routers, *(slot for slots in self._workers.values() for slot in slots))

    def _build(self) -> None:
        for program in (self._executables.router[0], self._executables.server[0]):
            if not Path(program).exists():
                raise ClusterError(f"{program} does not exist; a cluster here needs: pip install 'sie[local]'")
        first, count = self._file.router.port, self._file.router.replicas
        router_ports = [self._ports.take(first + n if first else 0) for n in range(count)]
        self._workers = {
            pool.name: tuple(self._worker_slot(pool, ordinal) for ordinal in range(pool.max_replicas))
            for pool in self.pools
        }
        self._routers = [self._router_slot(n, port) for n, port in enumerate(router_ports)]

    def _worker_slot(self, pool: Pool, ordinal: int) -> Slot:
        port, name = self._ports.take(), f"{pool.name}-{ordinal}"

        def program() -> Program:
            wanted = sum(self.size(other.name) for other in self.pools)
            env = programs.share_threads(self._settings.inherited, cores=self._settings.cores, workers=wanted)
            return programs.worker_program(self._executables.server, port, pool, name, env)

        return self._slot(name, port, program, WORKER_GRACE_S)

    def _router_slot(self, number: int, port: int) -> Slot:
        program = programs.router_program(
            self._executables.router,
            port,
            workers=[slot.place.url for slots in self._workers.values() for slot in slots],
            pools=self.pools,
            retry_after_s=self._file.router.retry_after_seconds,
            catalog=None if self._settings.has_models_dir else packaged_catalog(),
            # All routers share their resource pools, and find them again when one restarts.
            inherited={"SIE_ROUTER_POOLS_FILE": str(self.run_dir / "pools.json"), **self._settings.inherited},
        )
        return self._slot(f"router-{number}", port, lambda: program, SHUTDOWN_GRACE_S)

    def _slot(self, name: str, port: int, program: Factory, grace_s: float) -> Slot:
        place = Place(name, programs.url_of(port), self.run_dir / f"{name}.log")
        return Slot(place, program, self._observe, self._http, grace_s=grace_s)

    def _observe(self, event: Event) -> None:
        if isinstance(event, ProcessEvent):
            is_crash = event.phase is Phase.CRASHED
            self._keep_logs |= is_crash
            if is_crash and not self._first_crash.done():
                self._first_crash.set_result(event)
            if all(slot.is_ready for slot in self._routers):
                self._routers_ready.set()
        self._emit(event)

    async def _await_routers(self) -> None:
        ready = asyncio.create_task(self._routers_ready.wait())
        await asyncio.wait((ready, self._first_crash), timeout=ROUTER_START_S, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return
        ready.cancel()
        self._keep_logs = True
        slow = next(slot.place.name for slot in self._routers if not slot.is_ready)
        if not self._first_crash.done():
            raise ClusterError(
                f"{slow} was not ready after {ROUTER_START_S:.0f} s:\n{logs.log_tail(self.run_dir / f'{slow}.log')}"
            )
        event = self._first_crash.result()
        raise ClusterError(f"{event.name} ended with status {event.status}:\n{logs.log_tail(event.log)}")

    async def _close(self) -> None:
        """Stop everything: with grace, then by force; also when this is cancelled."""
        try:
            for slot in self._slots:
                slot.want(False, grace_s=SHUTDOWN_GRACE_S)
            await asyncio.gather(*(slot.stopped() for slot in self._slots))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._http.aclose()
            self._ports.close()
            if not self._keep_logs:
                with contextlib.suppress(OSError):
                    shutil.rmtree(self.run_dir)


def packaged_catalog() -> Path | None:
    """The models and bundles that workers know by default, found without importing the worker."""
    spec = importlib.util.find_spec("sie_server")
    folder = Path(spec.origin).parent / "catalog" if spec and spec.origin else None
    return folder if folder and folder.is_dir() else None
