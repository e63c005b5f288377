"""Workers and routers as processes that a test may kill, stop and replace. Each keeps its port over all its lives."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from sie_cli.ports import Ports
from sie_protocol.headers import READYZ

BIN = Path(sys.executable).parent
FAKE_WORKER = Path(__file__).parents[2] / "packages/router/tests/support/router_fakes.py"
MODEL = "sie/hash-64"
PROFILE = "l4"
START_S = 60.0
DRAIN_S = 1.0  # of a router: as long as those who choose between routers need to notice


@dataclass(slots=True)
class Place:
    """A port and whatever process serves it now; `log` holds what all of them said."""

    name: str
    log: Path
    port: int
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process; it is not ready yet."""
        environment = {**os.environ, **self.environment}  # noqa: TID251 - what a child of this test runs in
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdout=output, stderr=output, env=environment
            )

    def send(self, number: signal.Signals) -> None:
        """Signal the process."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the process to end."""
        assert self.process is not None
        return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL; also ends a stopped process."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        await self.ended()


class ChaosCluster:
    """Three workers, a fourth that only fails and joins later, and two routers that know all four."""

    def __init__(self, folder: Path) -> None:
        serve = ("serve", "--host", "127.0.0.1")
        self._ports = Ports()

        def place(name: str) -> Place:
            return Place(name, folder / f"{name}.log", self._ports.take())

        self.workers = [place(f"worker-{number}") for number in range(3)]
        for each in self.workers:
            each.command = (str(BIN / "sie-server"), *serve, "--port", str(each.port), "--models", MODEL)
            each.environment = {"POD_NAME": each.name, "SIE_MACHINE_PROFILE": PROFILE, "OMP_NUM_THREADS": "1"}
            each.environment["SIE_PRELOAD_MODELS"] = MODEL  # else one worker alone may hold it when it is killed
        self.failing = place("worker-3")
        self.failing.command = (sys.executable, str(FAKE_WORKER), str(self.failing.port), self.failing.name)
        self.failing.command += ("--model", MODEL, "--status-code", "500")
        flags = [part for each in (*self.workers, self.failing) for part in ("-w", each.url)]
        flags += ["--group", f"{PROFILE}:default", "--retry-after-s", "1", "--log-level", "warning"]
        self.routers = [place(f"router-{number}") for number in range(2)]
        for each in self.routers:
            each.command = (str(BIN / "sie-router"), *serve, "--port", str(each.port), *flags)
            each.environment = {"SIE_ROUTER_DRAIN_S": str(DRAIN_S)}
        self._http = httpx.AsyncClient(timeout=5, trust_env=False)

    async def start(self) -> None:
        """Start all but the failing worker, and wait until both routers know the others."""
        for each in (*self.workers, *self.routers):
            await each.start()
        await self.settled()

    async def settled(self) -> None:
        """Wait until each router has three healthy workers."""
        for router in self.routers:
            await self._until(lambda router=router: self.healthy(router), 3)  # type: ignore[misc]

    async def kill_worker(self, number: int) -> None:
        """SIGKILL a worker, start it again, wait until it serves."""
        await self.workers[number].kill()
        await self.workers[number].start()
        await self.settled()

    async def freeze_worker(self, number: int, freeze_s: float) -> None:
        """SIGSTOP a worker for a while: its connections stand, and nothing comes."""
        self.workers[number].send(signal.SIGSTOP)
        await asyncio.sleep(freeze_s)
        self.workers[number].send(signal.SIGCONT)
        await self.settled()

    async def fail_worker(self, fail_s: float) -> None:
        """Let the worker join that answers every request with 500."""
        await self.failing.start()
        await asyncio.sleep(fail_s)
        await self.failing.kill()
        await self.settled()

    async def roll_routers(self) -> None:
        """Replace one router after the other, as a rolling update does; each must end cleanly."""
        for router in self.routers:
            router.send(signal.SIGTERM)
            assert await router.ended() == 0, router.log.read_text()
            await router.start()
            await self._until(lambda router=router: self.is_ready(router), True)  # type: ignore[misc]
        await self.settled()

    async def is_ready(self, router: Place) -> bool:
        """True when this router wants requests."""
        with contextlib.suppress(httpx.TransportError):
            return (await self._http.get(router.url + READYZ)).is_success
        return False

    async def healthy(self, router: Place) -> int:
        """Healthy workers, as this router sees them."""
        with contextlib.suppress(httpx.TransportError):
            answer = await self._http.get(router.url + READYZ)
            return int(answer.json().get("healthy_workers", 0))
        return 0

    async def close(self) -> None:
        """Kill whatever runs."""
        await self._http.aclose()
        for each in (*self.routers, *self.workers, self.failing):
            if each.process is not None:
                await each.kill()
        self._ports.close()

    async def _until(self, probe: Callable[[], Awaitable[object]], wanted: object) -> None:
        async with asyncio.timeout(START_S):
            while await probe() != wanted:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)
