"""A router with pools, under virtual time: leases end, routers go away, answers are lost. Drives the keeper's flow."""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from sie_sdk import leases
from sie_sdk.errors import SIEError
from sie_sdk.leases import Change, Lease, LeaseBook
from sie_sdk.messages import Answer, Loss, Lost, Outcome, Pause, Request, Resume, Send
from sie_sdk.retry import Terms

Span = tuple[float, float]
TERMS = Terms(timeout_s=30, budget_s=30, wait_for_capacity=False)


def lease_of(name: str, made_at: float = 0.0, every_s: float = leases.RENEW_EVERY_S) -> Lease:
    path = f"/v1/pools/{name}"
    create = Request("POST", "/v1/pools", (), json.dumps({"name": name}).encode())
    return Lease(name, create, Request("POST", path + "/renew"), Request("DELETE", path), made_at, every_s)


@dataclass
class PoolWorld:
    """`outages`: spans without any answer. `losses`: moments at which the router forgets all pools.

    `renewed`: when each pool was made or renewed. `gaps`: spans between those of one life of a pool.
    """

    lease_s: float = 1200.0
    outages: tuple[Span, ...] = ()
    losses: tuple[float, ...] = ()
    lost_answers: float = 0.0
    now: float = 0.0
    seed: int = 0
    renewed: dict[str, list[float]] = field(default_factory=dict)
    told: list[tuple[str, Change]] = field(default_factory=list)
    requests: list[tuple[float, str]] = field(default_factory=list)
    began: int = 0
    on_create: Callable[[], None] = lambda: None  # while the pool is being made anew

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._alive: dict[str, float] = {}
        self._lost = sorted(self.losses)
        self.book = LeaseBook(self._begin, self._tell)

    def make(self, name: str, every_s: float = leases.RENEW_EVERY_S) -> Lease:
        self._touch(name)
        lease = lease_of(name, self.now, every_s)
        self.book.hold(lease)
        return lease

    def exists(self, name: str) -> bool:
        return name in self._alive and self.now - self._alive[name] <= self.lease_s

    def run(self, until: float) -> None:
        """Let the keeper work until this time."""
        flow = leases.keep(self.book, TERMS)(self.now)
        effect = next(flow)
        while self.now < until:
            outcome: Outcome | None = None
            match effect:
                case Pause(delay_s):
                    assert delay_s > 0, "a keeper that never pauses spins"
                    self.now += delay_s
                case Send(request, timeout_s):
                    outcome = self._answer(request, timeout_s)
                case _:
                    raise AssertionError(f"a keeper does not {effect}")
            effect = flow.send(Resume(self.now, self._random.random(), outcome))
        flow.close()

    def gaps(self, name: str) -> Iterable[float]:
        return (later - earlier for earlier, later in pairwise(self.renewed[name]))

    def _answer(self, request: Request, timeout_s: float) -> Outcome:
        self.requests.append((self.now, str(request)))
        self.now += 0.01
        while self._lost and self._lost[0] <= self.now:
            self._lost.pop(0)
            self._alive.clear()
        if any(begin <= self.now < end for begin, end in self.outages):
            if self._random.random() < 0.5:
                return Lost(Loss.CONNECT_FAILED, "nobody listens")
            self.now += timeout_s
            return Lost(Loss.TIMED_OUT, "no answer")
        answer = self._act(request)
        return Lost(Loss.CONNECTION_LOST, "reset") if self._random.random() < self.lost_answers else answer

    def _act(self, request: Request) -> Answer:
        if request.path == "/v1/pools":
            name = json.loads(request.body)["name"]
            self._touch(name)
            self.on_create()
            return Answer(201, {}, b"{}")
        name = request.path.split("/")[3]
        if not self.exists(name):
            return Answer(404, {}, b'{"error": {"code": "POOL_NOT_FOUND", "message": "gone"}}')
        if request.method == "DELETE":
            del self._alive[name]
        else:
            self._touch(name)
        return Answer(200, {}, b"{}")

    def _touch(self, name: str) -> None:
        self._alive[name] = self.now
        self.renewed.setdefault(name, []).append(self.now)

    def _begin(self) -> None:
        self.began += 1

    def _tell(self, name: str, change: Change, _: SIEError | None) -> None:
        self.told.append((name, change))
