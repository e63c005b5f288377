"""The endpoint of all inference routes: ask, decide, act. Bytes are parsed only where the model is named in them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, assert_never

from sie_protocol.codec import MAX_BODY_BYTES
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import RETRY_AFTER
from sie_router.core.demand import jittered, ttl_s
from sie_router.core.events import Missed
from sie_router.core.fleet import OTHER, Index
from sie_router.core.health import Verdict
from sie_router.core.pools import pool_key
from sie_router.core.retry_after import retry_hint
from sie_router.core.route import Ask, Decision, Forward, Provision, Reject
from sie_router.data.admission import Admission
from sie_router.data.answers import Answer, compat_provisioning, compat_refusal, provisioning, refusal
from sie_router.data.body import Body, ClientGone, Receive
from sie_router.data.call import Call, Send
from sie_router.data.connection import BudgetSpent, Came, ConnectionCut, Reply
from sie_router.data.fast_path import Begun
from sie_router.data.forward import Forwarder, Plane
from sie_router.data.incoming import WHOLE_SECONDS, Incoming, Scope, read_incoming, request_id, sdk_version, with_model
from sie_router.data.inflight import Inflight
from sie_router.data.named import model_found
from sie_router.data.outcome import CLIENT_GONE, CUT_SHORT, Outcome
from sie_router.data.outgoing import own, passed_on
from sie_router.data.parking import Parking

_RETRY_AFTER: Final = RETRY_AFTER.lower().encode()
_UNAVAILABLE: Final = 503
# With a quarter more 60 s: of a longer delay OpenAI's clients make their own, of seconds, or give up at once.
COMPAT_RETRY_AFTER_S: Final = 48
_ABOUT_MODEL: Final = frozenset({ErrorCode.MODEL_NOT_FOUND, ErrorCode.BUNDLE_CONFLICT})

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
        parking: Parking,
        terms: Terms,
        record: Callable[[Outcome], None],
    ) -> None:
        self._plane = plane
        self._forwarder = forwarder
        self._inflight = inflight
        self._admission = admission
        self._parking = parking
        self._terms = terms
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request whose path names the model."""
        await self._begin(scope, receive, send, is_named=False)

    async def named(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of another service's client, whose body names the model."""
        await self._begin(scope, receive, send, is_named=True)

    async def resume(self, begun: Begun, came: Came, scope: Scope, _: Receive, send: Send) -> None:
        """Go on with a request whose first try came to something else than a short answer."""
        begun.call.attach(scope, send)
        await self._run(begun.call, self._go_on(begun, came))

    async def _begin(self, scope: Scope, receive: Receive, send: Send, *, is_named: bool) -> None:
        call = Call(scope, self._plane.clock(), self._inflight, is_named=is_named)
        call.attach(scope, send)
        await self._run(call, self._serve(call, receive))

    async def _run(self, call: Call, serving: Coroutine[None, None, None]) -> None:
        try:
            await serving
        except Problem as problem:
            if not call.request_id:  # refused before anything was read
                call.request_id = request_id(call.scope, self._plane.new_id)
            if problem.retry_after_s is not None:
                problem.retry_after_s = jittered(problem.retry_after_s, self._plane.draw())
            version = sdk_version(call.scope)
            answer = compat_refusal(problem) if call.is_named else refusal(problem, sdk_version=version)
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
        incoming = call.incoming = read_incoming(call.scope, self._plane.new_id, is_named=call.is_named)
        call.request_id = incoming.request_id
        self._admission.enter(incoming.ask.caller, self._plane.clock())
        body = call.body = Body(receive, incoming.content_length, self._terms.max_body_bytes, self._admission)
        try:
            if call.is_named:
                await body.fill(self._forwarder.left_s(call, incoming), self._terms.max_body_bytes)
                incoming = call.incoming = with_model(incoming, await model_found(body))
            seen = self._plane.snapshot().index
            result = await self._first(call, incoming, body)
            await self._conclude(call, incoming, body, result, seen)
        finally:
            self._admission.release(body.held_bytes)
            self._admission.leave()

    async def _go_on(self, begun: Begun, came: Came) -> None:
        call, body = begun.call, begun.body
        try:
            if call.watch.is_late:
                self._forwarder.ended(begun.decision.worker, Verdict.NEUTRAL)
                raise ClientGone
            call.watch.start()
            result = await self._forwarder.forward(call, begun.incoming, body, begun.decision, came)
            await self._conclude(call, begun.incoming, body, result, begun.seen)
        finally:
            if isinstance(came, Reply):
                came.close()
            self._admission.release(body.held_bytes)
            self._admission.leave()

    async def _conclude(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index
    ) -> None:
        if not isinstance(result, Reply) or result.status == _UNAVAILABLE:
            result = await self._parking.wait(call, incoming, body, result, seen)
        if isinstance(result, Reply):
            await self._deliver(call, result)
        else:
            await self._decline(call, incoming, result)

    async def _first(self, call: Call, incoming: Incoming, body: Body) -> Reply | Decision:
        """What comes of the request now. Its body is read only if there is somebody to send it to."""
        decision = self._forwarder.decide(incoming.ask)
        if isinstance(decision, Reject) and decision.code is ErrorCode.POOL_NOT_FOUND:
            # It may have been made on another router a moment ago.
            await self._plane.find_pool(pool_key(incoming.ask.pool or ""))
            decision = self._forwarder.decide(incoming.ask)
        if not isinstance(decision, Forward):
            return decision
        call.model = decision.model_id
        seen = self._plane.snapshot()
        await body.fill(self._forwarder.left_s(call, incoming))
        if body.is_whole:
            call.watch.start()
        if self._plane.snapshot() is not seen:
            decision = self._forwarder.decide(incoming.ask)  # reading took a while
            if not isinstance(decision, Forward):
                return decision
        return await self._forwarder.forward(call, incoming, body, decision)

    async def _decline(self, call: Call, incoming: Incoming, decision: Decision) -> None:
        match decision:
            case Provision(group, is_configured, _, pool):
                if is_configured:
                    self._plane.publish(Missed(group, pool, ttl_s(self._terms.retry_after_s), call.arrival))
                call.provisioning = True
                call.group = group if is_configured else OTHER
                await self._answer(call, self._provisioning_answer(call, incoming.ask, decision))
            case Reject(code, message, details):
                about = {"param": "model"} if code in _ABOUT_MODEL else {}
                raise Problem(code, message, details={**details, **about} if call.is_named else details)
            case Forward():
                raise AssertionError("a decision to forward cannot be declined")
            case _:
                assert_never(decision)

    def _provisioning_answer(self, call: Call, ask: Ask, decision: Provision) -> Answer:
        terms, fleet, now = self._terms, self._plane.snapshot(), self._plane.clock()
        key = (decision.group, decision.pool)
        most_s = min(terms.retry_after_s, COMPAT_RETRY_AFTER_S) if call.is_named else terms.retry_after_s
        hint = retry_hint(fleet, ask, key, now, most_s, self._plane.draw())
        if call.is_named:
            return compat_provisioning(decision, hint.delay_s, hint.waited_s)
        left_s = hint.left_s or terms.estimated_wait_s
        return provisioning(decision, sdk_version(call.scope), hint.delay_s, left_s, hint.waited_s)

    async def _answer(self, call: Call, answer: Answer) -> None:
        call.status = answer.status
        headers = [*answer.headers, *own(call)]
        await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await call.send({"type": "http.response.body", "body": answer.body})

    def _jittered(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        is_delay = name == _RETRY_AFTER and WHOLE_SECONDS.fullmatch(value) is not None
        return name, b"%d" % jittered(int(value), self._plane.draw()) if is_delay else value

    async def _deliver(self, call: Call, reply: Reply) -> None:
        """Pass a worker's reply on. Cut in the middle, the client's connection is cut as well: never a clean end."""
        call.status = reply.status
        headers = passed_on(call, reply.headers)
        if reply.status == _UNAVAILABLE:
            headers = [self._jittered(name, value) for name, value in headers]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        if reply.body is not None:
            call.release()
            await call.send(start)
            await call.send({"type": "http.response.body", "body": reply.body})
            return
        try:
            call.watch.start()
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
