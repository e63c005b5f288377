"""Three routers with wrong clocks, a store that loses and delays, tenants that renew and then forget: in virtual time.

Runs the real `apply`, `put`, `renew`, `expired` and `unless_renewed`; only the store, the network and time are made up.
"""

import heapq
import itertools
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from router_builders import L4, pool, seen
from sie_protocol.errors import Problem
from sie_router.core.events import PoolEvent, PoolGone, PoolPut, PoolsListed, apply
from sie_router.core.fleet import Fleet
from sie_router.core.index import empty_fleet
from sie_router.core.leases import LEASE_S, MAX_SKEW_S, expired, unless_renewed
from sie_router.core.pools import ANYONE, Pool, put, renew

RENEW_EVERY_S = 60.0
REAP_EVERY_S = 20.0
MAX_DELAY_S = 5.0  # of a write on its way to the store, and of news on its way back
LOSS = 0.3  # of writes
TRIES = 12  # so often in a row does no seed lose: 0.3 ** 12 is one in two million
GONE_WITHIN_S = LEASE_S + 2 * MAX_SKEW_S + TRIES * (REAP_EVERY_S + MAX_DELAY_S)
WORKERS = 5

Step = Callable[[Pool | None], Pool | None]


@dataclass(slots=True)
class Router:
    """`offset` is how far its clock is ahead of true time; news reach it in order, never before `heard_at`."""

    offset: float
    fleet: Fleet
    heard_at: float = 0.0


class Simulation:
    """One seed; no two clocks differ by more than `skew_s`. `broken` collects violated laws, once it was `run`."""

    def __init__(self, seed: int, skew_s: float = MAX_SKEW_S) -> None:
        self.draw = random.Random(seed)
        self.now = 0.0
        self.start = 1.7e9  # Unix time at the beginning
        self.broken: list[str] = []
        self.stored: dict[str, tuple[int, Pool]] = {}
        self.renewed_at: dict[str, float] = {}
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count(1)
        self.on_the_way = 0
        workers = [seen(f"l4-{number}") for number in range(WORKERS)]
        self.routers: list[Router] = []
        for _ in range(3):
            fleet = empty_fleet([L4])
            for worker in self.draw.sample(workers, WORKERS):
                fleet = apply(fleet, worker, 0.0)
            self.routers.append(Router(self.draw.uniform(-skew_s / 2, skew_s / 2), fleet))

    def run(self) -> "Simulation":
        """Three tenants come, renew for a while, and forget; then it is awaited that all is gone."""
        ends = 0.0
        for name in ("a", "b", "c"):
            comes, stays = self.draw.uniform(0, 300), self.draw.choice((0.0, self.draw.uniform(0, 900)))
            self._at(comes, partial(self._tenant, name, comes + stays))
            ends = max(ends, comes + stays)
        for router in self.routers:
            self._at(self.draw.uniform(0, REAP_EVERY_S), partial(self._reap, router))
        end = ends + RENEW_EVERY_S + GONE_WITHIN_S + 2 * MAX_DELAY_S
        while self.agenda and self.agenda[0][0] <= end:
            self.now, _, act = heapq.heappop(self.agenda)
            act()
        if self.stored:
            self.broken.append(f"still there at the end: {sorted(self.stored)}")
        self._check_agreement()
        return self

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (moment, next(self.order), act))

    def _soon(self, act: Callable[[], None]) -> None:
        self._at(self.now + self.draw.uniform(0, MAX_DELAY_S), act)

    def _clock(self, router: Router) -> float:
        return self.start + self.now + router.offset

    def _tenant(self, name: str, until: float) -> None:
        """Make the pool, or renew it, on any router; without an answer, try again a minute later like the SDK."""
        router = self.draw.choice(self.routers)
        now = self._clock(router)
        asked = pool(name, {"l4": self.draw.randint(1, 3)}, created_at=now, last_renewed=now)
        if name in self.stored and self.draw.random() < 0.8:
            step: Step = partial(renew, name=name, caller=ANYONE, now=now)
        else:
            step = partial(put, asked=asked, caller=ANYONE)
        self._write(name, step, asked_at=self.now)
        if self.now + RENEW_EVERY_S <= until:
            self._at(self.now + RENEW_EVERY_S, partial(self._tenant, name, until))

    def _reap(self, router: Router) -> None:
        now = self._clock(router)
        for each in expired(router.fleet.pools.values(), now):
            self._write(each.name, partial(unless_renewed, now=now), asked_at=None)
        self._at(self.now + REAP_EVERY_S, partial(self._reap, router))

    def _write(self, name: str, step: Step, asked_at: float | None) -> None:
        """Read now, write later and only in the version that was read; some writes never arrive."""
        version, current = self.stored.get(name, (0, None))
        try:
            after = step(current)
        except Problem:
            return
        if self.draw.random() >= LOSS:
            self._soon(partial(self._commit, name, version, after, asked_at))

    def _commit(self, name: str, version: int, after: Pool | None, asked_at: float | None) -> None:
        current = self.stored.get(name)
        if (0 if current is None else current[0]) != version or (current and current[1] == after):
            return  # a conflict: whoever wanted this asks again
        if after is None:
            if current is None:
                return
            del self.stored[name]
            if self.now - self.renewed_at[name] < LEASE_S:
                self.broken.append(f"'{name}' was deleted {self.now - self.renewed_at[name]:.1f} s after its renewal")
            self._tell(PoolGone(name))
            return
        self.stored[name] = (next(self.order), after)
        assert asked_at is not None
        self.renewed_at[name] = max(asked_at, self.renewed_at.get(name, 0.0))
        self._at(self.now + GONE_WITHIN_S, partial(self._check_gone, name, self.renewed_at[name]))
        self._tell(PoolPut(after))

    def _tell(self, event: PoolEvent) -> None:
        for router in self.routers:
            router.heard_at = max(router.heard_at, self.now + self.draw.uniform(0, MAX_DELAY_S))
            heard = PoolsListed(tuple(each for _, each in self.stored.values())) if self.draw.random() < 0.1 else event
            self.on_the_way += 1
            self._at(router.heard_at, partial(self._hear, router, heard))

    def _hear(self, router: Router, event: PoolEvent) -> None:
        self.on_the_way -= 1
        router.fleet = apply(router.fleet, event, self.now)
        owners = router.fleet.index.owners
        if any(list(owners.values()).count(each.name) > each.gpus["l4"] for each in router.fleet.pools.values()):
            self.broken.append(f"a pool has more than it reserved: {owners}")
        if not self.on_the_way:
            self._check_agreement()

    def _check_gone(self, name: str, renewed_at: float) -> None:
        if name in self.stored and self.renewed_at[name] == renewed_at:
            self.broken.append(f"'{name}' is still there {self.now - renewed_at:.1f} s after its last renewal")

    def _check_agreement(self) -> None:
        """Nothing is on its way to anybody: all views are the store, and there is one assignment."""
        names = {name: each for name, (_, each) in self.stored.items()}
        if any(router.fleet.pools != names for router in self.routers):
            self.broken.append("a router believes what is not stored")
        if any(router.fleet.index.owners != self.routers[0].fleet.index.owners for router in self.routers):
            self.broken.append("two routers assign differently")


def broken_by(seeds: Iterable[int], skew_s: float = MAX_SKEW_S) -> dict[int, list[str]]:
    """The laws that some seeds violate."""
    return {seed: broken for seed in seeds if (broken := Simulation(seed, skew_s).run().broken)}


if __name__ == "__main__":
    found = broken_by(range(int(sys.argv[1])))
    sys.stdout.write(f"{sys.argv[1]} seeds, {len(found)} broken: {dict(list(found.items())[:5])}\n")
