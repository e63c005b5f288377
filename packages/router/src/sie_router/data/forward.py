"""Brings a request to a worker and its reply back, with another try where that is safe.

Our three operations are idempotent, so anything may be sent again as long as the client was told nothing. A try is
repeated on another worker when no connection could be made, when the connection broke, and when the worker itself
said "not me": it is shutting down, its queue is full, or it has yet to load the model or its LoRA. A worker that
answers with an internal error may be broken, so another one is asked too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import ERROR_CODE
from sie_router.core.events import Event, WorkerLost
from sie_router.core.fleet import Fleet, Worker
from sie_router.core.health import Verdict, verdict
from sie_router.core.route import Ask, Decision, Forward, decide
from sie_router.data.body import Body
from sie_router.data.call import Call
from sie_router.data.connection import BudgetSpent, Came, Connection, ConnectionCut, Reply, WorkerUnreachable
from sie_router.data.health import OutlierDetector
from sie_router.data.incoming import Incoming, head_for
from sie_router.data.inflight import Inflight
from sie_router.data.named import rename, renamed
from sie_router.data.retries import RetryBudget
from sie_router.data.upstream import Upstream, WorkerBusy

MAX_TRIES: Final = 3
MAX_REFUSALS: Final = 2  # a full cluster must not see every request three times
_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503
_ERROR_CODE: Final = ERROR_CODE.lower().encode()
_ABOUT_MODEL: Final = ErrorCode.MODEL_LOAD_FAILED.encode()
# What to pass on when two workers refuse, most useful first: a model on its way beats a full queue.
_USEFUL: Final = (b"LORA_LOADING", b"MODEL_LOADING", b"QUEUE_FULL", b"SHUTTING_DOWN")
# Who says so has begun to load: whoever else would have to as well is no help.
LOADING: Final = frozenset({b"LORA_LOADING", b"MODEL_LOADING"})
# Errors that say nothing about the request, unlike INFERENCE_ERROR, which another worker would repeat.
_BROKEN: Final = frozenset({b"", ErrorCode.INTERNAL_ERROR.encode()})
_FAILED: Final = len(_USEFUL)  # their rank: anything else a worker says is more useful


@dataclass(slots=True)
class Tries:
    """What happened to one request so far; local to `Forwarder.forward`.

    `is_free`: the last worker did not work on it, so another try is no more load than the first one.
    """

    avoid: tuple[str, ...] = ()
    count: int = 0
    refusals: int = 0
    kept: tuple[int, Reply, Worker] | None = None
    last_cut: str | None = None
    is_free: bool = False
    loaded_only: bool = False
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Plane:
    """What the data plane knows of the rest: the snapshot, where to report what it notices, and whom to ask for a pool.

    `find_pool` returns once the snapshot knows the pool, if there is one. `draw` is uniform in [0, 1), `new_id`
    makes ids of requests.
    """

    snapshot: Callable[[], Fleet]
    publish: Callable[[Event], None]
    clock: Callable[[], float]
    draw: Callable[[], float]
    find_pool: Callable[[str], Awaitable[None]]
    new_id: Callable[[], str]


class Forwarder:
    """Runs the tries of one request after the other."""

    def __init__(
        self,
        plane: Plane,
        inflight: Inflight,
        health: OutlierDetector,
        upstream: Upstream,
        retries: RetryBudget,
        budget_s: float,
    ) -> None:
        self._plane = plane
        self._health = health
        self._inflight = inflight
        self._upstream = upstream
        self._budget_s = budget_s
        self._retries = retries

    def decide(self, ask: Ask) -> Decision:
        """Where a request would go now."""
        return decide(self._plane.snapshot(), ask, self._inflight.workers, self._plane.draw())

    def deadline(self, call: Call, incoming: Incoming) -> float:
        """When the answer must have come, in monotonic time."""
        own, asked = self._budget_s, incoming.timeout_s
        return call.started + (own if asked is None else min(own, asked))

    def left_s(self, call: Call, incoming: Incoming) -> float:
        """How long the answer may still take."""
        return self.deadline(call, incoming) - self._plane.clock()

    def begin(
        self, call: Call, incoming: Incoming, body: Body, to: Forward, tell: Callable[[Came], None]
    ) -> Connection | None:
        """Make the first try at once, with a whole body on a kept connection; None if there is none.

        `tell` hears what came of it, for `succeeded` or for `forward`.
        """
        worker = to.worker
        if incoming.path:
            rename(body, incoming.ask.model, to.model_id)
        head = head_for(incoming, worker, to.model_id, body.wire_length)
        left_s = self.deadline(call, incoming) - call.started
        connection = self._upstream.begin(worker.url, head, body.data, left_s, tell)
        if connection is not None:
            self._retries.earn()
            call.hold(to)
            self._health.sent(worker)
        return connection

    def ended(self, worker: Worker, said: Verdict) -> None:
        """A first try is over, and there will be no other."""
        self._health.report(worker, said)

    async def forward(
        self, call: Call, incoming: Incoming, body: Body, first: Forward, came: Came | None = None
    ) -> Reply | Decision:
        """The reply to pass on, or the decision that remains when nobody gave one.

        The call stays counted as on its way to the worker whose reply this is. `came` is what a first try came to that
        `begin` made.

        Raises:
            Problem: DEADLINE_EXCEEDED, QUEUE_FULL (of this router), WORKER_UNAVAILABLE.
            ClientGone: while a long body was read.
        """
        tries = Tries()
        decision: Decision = first
        if came is None:
            self._retries.earn()
            if incoming.path:
                await renamed(body, incoming.ask.model, first.model_id)
        while isinstance(decision, Forward):
            reply = await self._try(call, incoming, body, decision, tries, came)
            came = None
            if reply is not None and not self._is_refused(reply, decision.worker, tries):
                return reply
            is_spent = tries.count >= MAX_TRIES or tries.refusals >= MAX_REFUSALS or not body.can_repeat
            if is_spent:
                break
            decision = self._again(incoming.ask, tries)
            if isinstance(decision, Forward) and not (tries.is_free or self._retries.take(self._plane.clock())):
                break
        return self._last_word(call, incoming.ask, tries)

    async def _try(
        self, call: Call, incoming: Incoming, body: Body, to: Forward, tries: Tries, came: Came | None
    ) -> Reply | None:
        worker = to.worker
        if came is None:
            call.hold(to)
            self._health.sent(worker)
        tries.count += 1
        tries.is_free = False
        call.retries += tries.count > 1
        left_s = self.deadline(call, incoming) - (self._plane.clock() if came is None else call.started)
        said = Verdict.NEUTRAL
        try:
            reply = await self._send(call, incoming, body, to, came)
            is_error = reply.status >= _SERVER_ERROR
            said = verdict(reply.status, is_about_model=is_error and code_of(reply) == _ABOUT_MODEL)
        except BudgetSpent as spent:
            if body.is_awaited:
                raise body.late() from spent
            # A second worker, or that of an impatient client, may have had little of the time.
            said = Verdict.BAD if left_s > self._budget_s / 2 else Verdict.NEUTRAL
            time_s = self.deadline(call, incoming) - call.started
            message = f"worker '{worker.name}' did not answer within {time_s:g} s; send less at a time, or retry"
            raise Problem(ErrorCode.DEADLINE_EXCEEDED, message) from spent
        except WorkerUnreachable:
            said = Verdict.BAD
            tries.is_free = True
            self._plane.publish(WorkerLost(worker.url))
        except ConnectionCut:
            said = Verdict.BAD
            # A second cut by the same worker is about the request; only the first may mean that the worker died.
            tries.last_cut = None if worker.url in tries.avoid else worker.url
        except WorkerBusy:
            tries.is_busy = tries.is_free = True
        else:
            return reply
        finally:
            self._health.report(worker, said)
        tries.avoid = (*tries.avoid, worker.url)
        return None

    async def _send(self, call: Call, incoming: Incoming, body: Body, to: Forward, came: Came | None) -> Reply:
        if isinstance(came, Reply):
            return came
        if came is not None and not (isinstance(came, ConnectionCut) and not came.received):
            raise came
        # Nothing was sent, or a kept connection was closed just as it was used: that is no try.
        left_s = self.left_s(call, incoming)
        if left_s <= 0:
            raise BudgetSpent("no time is left")
        head = head_for(incoming, to.worker, to.model_id, body.wire_length)
        if body.is_whole:
            return await self._upstream.send(to.worker.url, head, body.data, left_s)
        return await self._upstream.stream(to.worker.url, head, _watched(call, body), left_s)

    def _is_refused(self, reply: Reply, worker: Worker, tries: Tries) -> bool:
        """True when the reply is a worker's "not me" or its failure; it is kept, in case nobody says better."""
        if reply.status < _SERVER_ERROR or reply.body is None:
            return False
        code = code_of(reply)
        is_failure = reply.status == _SERVER_ERROR and code in _BROKEN
        if not is_failure and (reply.status != _UNAVAILABLE or code not in _USEFUL):
            return False
        tries.avoid = (*tries.avoid, worker.url)
        tries.loaded_only = code in LOADING
        if code == b"SHUTTING_DOWN":
            tries.is_free = True
            self._plane.publish(WorkerLost(worker.url))
            return True
        tries.refusals += 1
        rank = _FAILED if is_failure else _USEFUL.index(code)
        if tries.kept is None or rank < tries.kept[0]:
            tries.kept = (rank, reply, worker)
        return True

    def _again(self, ask: Ask, tries: Tries) -> Decision:
        decision = self.decide(replace(ask, avoid=tries.avoid, loaded_only=tries.loaded_only))
        if isinstance(decision, Forward) or tries.last_cut is None or tries.kept is not None:
            return decision
        # Nobody else is there. Was it one connection, or the worker? A new connection tells.
        avoid = tuple(url for url in tries.avoid if url != tries.last_cut)
        return self.decide(replace(ask, avoid=avoid))

    def _last_word(self, call: Call, ask: Ask, tries: Tries) -> Reply | Decision:
        if tries.kept is not None:
            _, reply, worker = tries.kept
            call.worker, call.group = worker.name, worker.group
            return reply
        if tries.is_busy:
            raise Problem(ErrorCode.QUEUE_FULL, "every worker for this has all the connections this router may open")
        decision = self.decide(ask)
        if isinstance(decision, Forward):
            message = f"{tries.count} tries ended without an answer, workers closed the connection; try again"
            raise Problem(ErrorCode.WORKER_UNAVAILABLE, message)
        call.release()
        return decision


def code_of(reply: Reply) -> bytes:
    """The error code of a reply; empty without one."""
    return next((value for name, value in reply.headers if name == _ERROR_CODE), b"")


async def _watched(call: Call, body: Body) -> AsyncIterator[bytes]:
    async for piece in body.pieces():
        yield piece
    call.watch.start()
