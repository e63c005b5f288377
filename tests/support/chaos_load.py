"""Clients that ask all the time and note what came of it, paced to a share of what the cluster can do."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
from numpy.typing import NDArray

from chaos_cluster import MODEL, ChaosCluster, Place
from sie_protocol.headers import ERROR_CODE, JSON, operation_path
from sie_sdk import SIEAsyncClient, SIEError
from sie_sdk.types import Item

TEXTS = tuple(f"text number {number} of a cluster in trouble" for number in range(16))
CLIENTS = 4  # of each kind
TIMEOUT_S = 30.0
POLL_S = 0.1
OK = "ok"


@dataclass(slots=True)
class Tally:
    """Outcomes of each kind of client, and the slowest success of each in seconds."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {"sdk": Counter(), "never retries": Counter()})
    slowest_s: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, outcome: str, took_s: float) -> None:
        """One request ended."""
        self.counts[kind][outcome] += 1
        if outcome == OK:
            self.slowest_s[kind] = max(self.slowest_s.get(kind, 0.0), took_s)

    def failures(self, kind: str) -> int:
        """Requests whose client saw something else than the right answer."""
        return self.counts[kind].total() - self.counts[kind][OK]

    def table(self) -> str:
        """One line for each kind."""
        return "\n".join(
            f"{kind:<14} {count.total():>7} requests, {self.failures(kind)} failed, slowest success "
            f"{self.slowest_s.get(kind, 0.0):.1f} s: {dict(count)}"
            for kind, count in self.counts.items()
        )


class Pace:
    """Lets one client ask every `interval_s`; one that had to wait asks again at once, and does not catch up."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = time.monotonic()

    async def turn(self) -> None:
        """Wait for the next turn."""
        now = time.monotonic()
        self._next = max(now, self._next + self._interval_s)
        await asyncio.sleep(self._next - now)


class Balancer:
    """What stands in front of routers in Kubernetes: sends new requests only to those that are ready, in turn."""

    def __init__(self, cluster: ChaosCluster) -> None:
        self._cluster = cluster
        self._ready: list[Place] = list(cluster.routers)
        self._turns = itertools.count()

    def pick(self) -> str:
        """The URL of a router."""
        return self._ready[next(self._turns) % len(self._ready)].url

    async def watch(self) -> None:
        """Follow readiness; never returns, cancel it."""
        while True:
            states = [(router, await self._cluster.is_ready(router)) for router in self._cluster.routers]
            self._ready = [router for router, is_ready in states if is_ready] or self._ready
            await asyncio.sleep(POLL_S)


class Load:
    """Both kinds of clients on one cluster. `stop` ends them after the request each is at."""

    def __init__(self, cluster: ChaosCluster) -> None:
        self.tally = Tally()
        self.stop = asyncio.Event()
        self._cluster = cluster
        self._balancer = Balancer(cluster)
        self._expected: dict[str, NDArray[np.float32]] = {}

    async def learn(self) -> None:
        """Ask for every text once, so that a wrong answer is noticed later."""
        async with SIEAsyncClient(self._cluster.routers[0].url) as client:
            for text in TEXTS:
                self._expected[text] = (await client.encode(MODEL, Item(text=text)))["dense"]

    async def capacity(self, seconds: float) -> float:
        """Requests a second that all clients together get answered when none of them waits."""
        rest = Load(self._cluster)
        rest._expected = self._expected
        async with rest.running(float("inf")):
            await asyncio.sleep(seconds)
        assert sum(rest.tally.failures(kind) for kind in rest.tally.counts) == 0, rest.tally.table()
        return sum(count.total() for count in rest.tally.counts.values()) / seconds

    @contextlib.asynccontextmanager
    async def running(self, per_second: float) -> AsyncIterator[None]:
        """Ask this often for as long as the block lasts."""
        interval_s = 2 * CLIENTS / per_second
        watch = asyncio.create_task(self._balancer.watch())
        routers = itertools.cycle(self._cluster.routers)
        clients = [asyncio.create_task(self._with_sdk(next(routers), Pace(interval_s))) for _ in range(CLIENTS)]
        clients += [asyncio.create_task(self._without_retries(Pace(interval_s))) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            self.stop.set()
            await asyncio.gather(*clients)
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _with_sdk(self, router: Place, pace: Pace) -> None:
        async with SIEAsyncClient(router.url, timeout_s=TIMEOUT_S) as client:

            async def ask(text: str) -> str:
                try:
                    result = await client.encode(MODEL, Item(text=text))
                except SIEError as error:
                    return f"{type(error).__name__} {error.code}"
                return self._judged(text, result["dense"])

            await self._ask_on("sdk", ask, pace)

    async def _without_retries(self, pace: Pace) -> None:
        headers = {"accept": JSON}
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, headers=headers) as client:

            async def ask(text: str) -> str:
                url = self._balancer.pick() + operation_path("encode", MODEL)
                try:
                    answer = await client.post(url, json={"items": [{"text": text}]})
                except httpx.TransportError as error:
                    return type(error).__name__
                if answer.status_code != httpx.codes.OK:
                    return f"{answer.status_code} {answer.headers.get(ERROR_CODE, '')}"
                return self._judged(text, answer.json()["items"][0]["dense"]["values"])

            await self._ask_on("never retries", ask, pace)

    async def _ask_on(self, kind: str, ask: Callable[[str], Awaitable[str]], pace: Pace) -> None:
        for text in itertools.cycle(TEXTS):
            await pace.turn()
            if self.stop.is_set():
                return
            started = time.monotonic()
            self.tally.add(kind, await ask(text), time.monotonic() - started)

    def _judged(self, text: str, values: Sequence[float] | NDArray[np.float32]) -> str:
        return OK if np.allclose(values, self._expected[text], atol=1e-6) else "wrong vector"
