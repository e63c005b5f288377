"""The way of nearly every request: whole when it begins, sent at once on a kept connection, answered in one piece.

Such a request needs no task and no coroutine: it is sent in the callback that ends its parsing, and answered in the
callback that ends the parsing of the reply. A first try that comes to anything else goes on in the proxy, which knows
of other tries, of waiting and of long answers. A request that is not like this from the start is the proxy's alone.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from sie_protocol.compat import COMPAT_PATHS
from sie_protocol.errors import Problem
from sie_protocol.headers import INFERENCE_OPERATIONS, operation_path
from sie_router.core.fleet import Index
from sie_router.core.health import Verdict, verdict
from sie_router.core.route import Forward
from sie_router.data.admission import Admission
from sie_router.data.body import Body, Receive
from sie_router.data.call import Call, Send
from sie_router.data.connection import Came, Connection, Reply
from sie_router.data.forward import Forwarder, Plane
from sie_router.data.incoming import Incoming, RawHeaders, Scope, read_incoming, with_model
from sie_router.data.inflight import Inflight
from sie_router.data.named import model_named
from sie_router.data.outcome import CLIENT_GONE, Outcome
from sie_router.data.outgoing import passed_on

MAX_BODY_BYTES: Final = 64 << 10  # a longer body comes in many pieces, and is worth a task
_PREFIXES: Final = tuple(operation_path(operation, "") for operation in INFERENCE_OPERATIONS)
_SERVER_ERROR: Final = 500

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Resume = Callable[["Begun", Came, Scope, Receive, Send], Awaitable[None]]
End = Callable[["Begun", int, Verdict], None]


class Client(Protocol):
    """The connection a request came on. Exactly one of the two ends every request, unless the client goes away."""

    def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer."""
        ...

    def go_on(self, scope: Scope, app: App) -> None:
        """Have an application serve the request in a task."""
        ...


class Begun:
    """A request whose first try is under way. `seen` is the index in whose light its worker was chosen."""

    __slots__ = ("_client", "_end", "_is_over", "_resume", "body", "call", "connection", "decision", "incoming", "seen")

    def __init__(  # noqa: PLR0913, PLR0917 - made in one place, once for each request
        self, client: Client, end: End, resume: Resume, call: Call, incoming: Incoming, body: Body, decision: Forward,
        seen: Index,
    ) -> None:  # fmt: skip
        self._client = client
        self._end = end
        self._resume = resume
        self._is_over = False
        self.call = call
        self.incoming = incoming
        self.body = body
        self.decision = decision
        self.seen = seen
        self.connection: Connection | None = None

    def came(self, came: Came) -> None:
        """The first try is over."""
        if self._is_over:
            return
        self._is_over = True
        if not isinstance(came, Reply) or came.body is None or came.status >= _SERVER_ERROR:
            self._client.go_on(self.call.scope, partial(self._resume, self, came))
            return
        headers = passed_on(self.call, came.headers)
        self._client.answer(came.status, headers, came.body)
        self._end(self, came.status, verdict(came.status))

    def gone(self) -> None:
        """The client went away."""
        if self._is_over:
            return
        self._is_over = True
        if self.connection is not None:
            self.connection.give_up()
        self._end(self, CLIENT_GONE, Verdict.NEUTRAL)


class FastPath:
    """Begins requests and ends those that succeed; `resume` is the proxy's way to go on with the others.

    `see` puts the caller into the scope of a request.
    """

    def __init__(
        self,
        *,
        plane: Plane,
        forwarder: Forwarder,
        inflight: Inflight,
        admission: Admission,
        see: Callable[[Scope], object],
        resume: Resume,
        record: Callable[[Outcome], None],
    ) -> None:
        self._plane = plane
        self._forwarder = forwarder
        self._inflight = inflight
        self._admission = admission
        self._see = see
        self._resume = resume
        self._record = record

    def begin(self, scope: Scope, data: bytes, client: Client) -> Begun | None:
        """Send a whole request to a worker; None, and nothing happened, when it has to go the long way."""
        is_named = scope["path"] in COMPAT_PATHS
        call = Call(scope, self._plane.clock(), self._inflight, is_named=is_named)
        self._see(scope)
        try:
            incoming = read_incoming(scope, self._plane.new_id, is_named=is_named)
            if is_named:
                incoming = with_model(incoming, model_named(data))
        except Problem:
            return None
        caller, decision = incoming.ask.caller, self._forwarder.decide(incoming.ask)
        if not isinstance(decision, Forward) or not self._admission.has_room(len(data), caller, call.started):
            return None
        body = Body.whole(data, self._admission)
        begun = Begun(client, self._end, self._resume, call, incoming, body, decision, self._plane.snapshot().index)
        begun.connection = self._forwarder.begin(call, incoming, body, decision, begun.came)
        if begun.connection is None:
            self._admission.release(body.held_bytes)
            return None
        self._admission.enter(caller, call.started)
        call.incoming, call.body = incoming, body
        call.request_id, call.model = incoming.request_id, decision.model_id
        return begun

    def _end(self, begun: Begun, status: int, said: Verdict) -> None:
        call = begun.call
        call.status = status
        call.release()
        self._forwarder.ended(begun.decision.worker, said)
        self._admission.release(begun.body.held_bytes)
        self._admission.leave()
        self._record(call.outcome(self._plane.clock()))


def takes_fast_path(scope: Scope) -> bool:
    """True for requests that ask a model for something."""
    method: str = scope["method"]
    path: str = scope["path"]
    return method == "POST" and (path.startswith(_PREFIXES) or path in COMPAT_PATHS)
