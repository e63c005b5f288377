"""One child process that runs while it is wanted: started, watched, restarted after a crash, stopped with grace.

Knows nothing of routers, workers or scaling. Who wants it to run says so with `want`.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from sie_cli import child
from sie_cli.events import Emit, Phase, ProcessEvent
from sie_cli.logs import bound
from sie_protocol.headers import HEALTHZ, READYZ

PROBE_EVERY_S = 0.05  # readiness is reported this late at most
PROBE_TIMEOUT_S = 5.0
LOG_CHECK_EVERY_S = 10.0
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 30.0
SLOW_AFTER_S = 3.0  # listening and not ready for so long: whoever waits wants to know why
STABLE_AFTER_S = 10.0  # a process that ran this long starts its backoff anew


@dataclass(frozen=True, slots=True)
class Program:
    """What to execute: the argument vector, program first, and the whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


Factory = Callable[[], Program]  # asked anew at each start


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process lives: its name, the address it will listen on, and its log file."""

    name: str
    url: str
    log: Path


def backoff_s(crashes: int) -> float:
    """Pause before the next start after this many crashes in a row."""
    return float(min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (crashes - 1)))


class Slot:
    """A place for one process. `run` is its only task and the only one that touches the process."""

    def __init__(
        self,
        place: Place,
        program: Factory,
        emit: Emit,
        http: httpx.AsyncClient,
        *,
        grace_s: float,
        slow_after_s: float = SLOW_AFTER_S,
    ) -> None:
        self.place = place
        self.is_ready = False
        self._program = program
        self._emit_event = emit
        self._http = http
        self._grace_s = grace_s
        self._slow_after_s = slow_after_s
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._unwanted.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._crashes = 0

    @property
    def is_wanted(self) -> bool:
        """True while the process should run."""
        return self._wanted.is_set()

    def want(self, wanted: bool, *, grace_s: float | None = None) -> None:
        """Say whether the process should run; `grace_s` changes how long an unwanted one may take to end."""
        self._grace_s = self._grace_s if grace_s is None else grace_s
        (self._wanted.set if wanted else self._wanted.clear)()
        (self._unwanted.clear if wanted else self._unwanted.set)()

    async def stopped(self) -> None:
        """Return once no process is there."""
        await self._idle.wait()

    async def run(self) -> None:
        """Serve `want` until cancelled; a running process is then killed."""
        while True:
            await self._wanted.wait()
            self._idle.clear()
            try:
                await self._live()
            finally:
                self._idle.set()
            if self.is_wanted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s(self._crashes)):
                        await self._unwanted.wait()
            else:
                self._crashes = 0

    async def _live(self) -> None:
        """From one start to its end, for whatever reason."""
        async with self._process() as process:
            started_at = time.monotonic()
            self._emit(Phase.STARTED, process)
            ended, unwanted = asyncio.create_task(process.wait()), asyncio.create_task(self._unwanted.wait())
            watch = asyncio.create_task(self._watch(process))
            try:
                await asyncio.wait((ended, unwanted), return_when=asyncio.FIRST_COMPLETED)
                self.is_ready = False
                if not ended.done():
                    self._emit(Phase.STOPPING, process)
                    await self._stop(process, ended)
                    self._emit(Phase.STOPPED, process)
                    return
            finally:
                self.is_ready = False
                await _cancel(watch, unwanted, ended)
            self._crashes = 1 if time.monotonic() - started_at > STABLE_AFTER_S else self._crashes + 1
            self._emit(Phase.CRASHED, process, retry_in_s=backoff_s(self._crashes))

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[Process]:
        program = self._program()
        launcher = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
        with open_log(self.place.log) as log:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                *program.argv,
                env=program.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C in the terminal reaches the parent only, which stops things in order
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())

    async def _stop(self, process: Process, ended: "asyncio.Task[int]") -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait((ended,), timeout=self._grace_s)
        if not done:
            process.kill()
            await ended

    async def _watch(self, process: Process) -> None:
        await self._probe(HEALTHZ)
        self._emit(Phase.LISTENING, process)
        try:
            async with asyncio.timeout(self._slow_after_s):
                await self._probe(READYZ)
        except TimeoutError:
            if self.is_wanted:
                self._emit(Phase.SLOW, process)
            await self._probe(READYZ)
        self.is_ready = True
        self._emit(Phase.READY, process)
        while True:
            bound(self.place.log)
            await asyncio.sleep(LOG_CHECK_EVERY_S)

    async def _probe(self, path: str) -> None:
        """Return once the path answers with 200."""
        while True:
            with contextlib.suppress(httpx.HTTPError):
                response = await self._http.get(self.place.url + path, timeout=PROBE_TIMEOUT_S)
                if response.status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(PROBE_EVERY_S)

    def _emit(self, phase: Phase, process: Process, *, retry_in_s: float | None = None) -> None:
        self._emit_event(
            ProcessEvent(
                name=self.place.name,
                phase=phase,
                at=time.monotonic(),
                pid=process.pid,
                url=self.place.url,
                log=self.place.log,
                status=process.returncode,
                retry_in_s=retry_in_s,
            )
        )


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, so that it can be emptied while a child writes to it."""
    return path.open("ab")


async def _cancel(*tasks: "asyncio.Task[object]") -> None:
    """End side tasks; whatever went wrong in one of them is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
