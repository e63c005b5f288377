"""The endpoint of the three inference routes: ask, decide, act. Bytes are never parsed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from sie_protocol.codec import MAX_BODY_BYTES
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import REQUEST_ID, SERVER_VERSION, WORKER
from sie_router.core.demand import ttl_s
from sie_router.core.events import Missed
from sie_router.core.fleet import OTHER
from sie_router.core.pools import pool_key
from sie_router.core.route import Forward, Provision, Reject
from sie_router.data.admission import Admission
from sie_router.data.answers import Answer, provisioning, refusal
from sie_router.data.body import Body, ClientGone, Receive
from sie_router.data.call import Call, Send
from sie_router.data.connection import BudgetSpent, ConnectionCut, Reply
from sie_router.data.forward import Forwarder, Plane
from sie_router.data.incoming import HOP_BY_HOP, RawHeaders, Scope, read_incoming, sdk_version, without_named
from sie_router.data.inflight import Inflight
from sie_router.data.outcome import CLIENT_GONE, CUT_SHORT, Outcome

_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_WORKER: Final = WORKER.lower().encode()
# The router's own server writes the date, and exactly one version stands on an answer: the router's.
_DROPPED: Final = HOP_BY_HOP | {SERVER_VERSION.lower().encode(), _WORKER, _REQUEST_ID, b"date", b"server"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the proxy promises and demands."""

    retry_after_s: int
    estimated_wait_s: int
    max_body_bytes: int = MAX_BODY_BYTES


class Proxy:
    """A raw ASGI application. Every request ends in exactly one call of `record`, whatever became of it."""

    def __init__(
        self,
        *,
        plane: Plane,
        forwarder: Forwarder,
        inflight: Inflight,
        admission: Admission,
        terms: Terms,
        record: Callable[[Outcome], None],
        new_id: Callable[[], str],
    ) -> None:
        self._plane = plane
        self._forwarder = forwarder
        self._inflight = inflight
        self._admission = admission
        self._terms = terms
        self._record = record
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        call = Call(scope, send, self._plane.clock(), self._inflight)
        try:
            await self._serve(call, receive)
        except Problem as problem:
            answer = refusal(problem)
            if problem.code is ErrorCode.METHOD_NOT_ALLOWED:
                answer.headers.append((b"allow", b"POST"))
            await self._answer(call, answer)
        except ClientGone:
            call.status = CLIENT_GONE
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not call.watch.is_gone or task is None:
                raise
            task.uncancel()
            call.status = CLIENT_GONE
        finally:
            call.watch.stop()
            call.release()
            self._record(call.outcome(self._plane.clock()))

    async def _serve(self, call: Call, receive: Receive) -> None:
        incoming = call.incoming = read_incoming(call.scope, self._new_id)
        call.request_id = incoming.request_id
        self._admission.enter()
        body = call.body = Body(receive, incoming.content_length, self._terms.max_body_bytes, self._admission)
        try:
            decision = self._forwarder.decide(incoming.ask)
            if isinstance(decision, Reject) and decision.code is ErrorCode.POOL_NOT_FOUND:
                # It may have been made on another router a moment ago.
                await self._plane.find_pool(pool_key(incoming.ask.pool or ""))
                decision = self._forwarder.decide(incoming.ask)
            if not isinstance(decision, Forward):
                await self._decline(call, decision)
                return
            call.model = decision.model_id
            seen = self._plane.snapshot()
            await body.fill()
            if body.is_whole:
                call.watch.start()
            if self._plane.snapshot() is not seen:
                decision = self._forwarder.decide(incoming.ask)  # reading took a while
            result = (
                await self._forwarder.forward(call, incoming, body, decision)
                if isinstance(decision, Forward)
                else decision
            )
            if isinstance(result, Reply):
                await self._deliver(call, result)
            else:
                await self._decline(call, result)
        finally:
            self._admission.release(body.held_bytes)
            self._admission.leave()

    async def _decline(self, call: Call, decision: Forward | Provision | Reject) -> None:
        match decision:
            case Provision(group, is_configured, _, pool):
                if is_configured:
                    self._plane.publish(Missed(group, pool, ttl_s(self._terms.retry_after_s)))
                call.provisioning = True
                call.group = group if is_configured else OTHER
                terms = self._terms
                version = sdk_version(call.scope)
                answer = provisioning(decision, version, terms.retry_after_s, terms.estimated_wait_s)
                await self._answer(call, answer)
            case Reject(code, message, details):
                raise Problem(code, message, details=details)
            case Forward():
                raise AssertionError("a decision to forward cannot be declined")
            case _:
                assert_never(decision)

    async def _answer(self, call: Call, answer: Answer) -> None:
        call.status = answer.status
        headers = answer.headers
        if call.request_id:
            headers = [*headers, (_REQUEST_ID, call.request_id)]
        await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await call.send({"type": "http.response.body", "body": answer.body})

    async def _deliver(self, call: Call, reply: Reply) -> None:
        """Pass a worker's reply on. Cut in the middle, the client's connection is cut as well: never a clean end."""
        call.status = reply.status
        start = {"type": "http.response.start", "status": reply.status, "headers": _passed_on(call, reply.headers)}
        if reply.body is not None:
            call.release()
            await call.send(start)
            await call.send({"type": "http.response.body", "body": reply.body})
            return
        call.watch.start()
        try:
            await call.send(start)
            while data := await reply.read():
                await call.send({"type": "http.response.body", "body": data, "more_body": True})
        except (ConnectionCut, BudgetSpent) as error:
            call.status = CUT_SHORT
            logger.warning("the answer of worker '%s' was cut in the middle: %s", call.worker, error)
            return
        finally:
            reply.close()
        await call.send({"type": "http.response.body", "body": b""})


def _passed_on(call: Call, headers: RawHeaders) -> RawHeaders:
    kept: RawHeaders = []
    connection = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered not in _DROPPED:
            kept.append((lowered, value))
        elif lowered == b"connection":
            connection = value
    if connection:
        kept = without_named(kept, connection)
    kept.append((_WORKER, call.worker.encode()))
    kept.append((_REQUEST_ID, call.request_id))
    return kept
