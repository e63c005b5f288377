"""One request on its way through the proxy: what is known of it so far, and what must be released at its end."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sie_protocol.target import ModelRef
from sie_router.core.demand import Arrival
from sie_router.core.fleet import OTHER, Group
from sie_router.core.route import Ask, Forward
from sie_router.data.body import Body
from sie_router.data.incoming import Incoming, Scope
from sie_router.data.inflight import Inflight
from sie_router.data.outcome import Outcome

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

GONE: Final = "sie.gone"


class Gone:
    """How the server tells that the client of a request went away; kept in its ASGI scope under `GONE`.

    A callback, because listening with `receive` would take a task for every request.
    """

    __slots__ = ("callback", "is_told")

    def __init__(self) -> None:
        self.callback: Callable[[], None] | None = None
        self.is_told = False

    def tell(self) -> None:
        """The client went away."""
        self.is_told = True
        if self.callback is not None:
            self.callback()


class Watch:
    """Cancels the running task when the client goes away while the answer is being made."""

    __slots__ = ("_gone", "_owner", "is_gone")

    def __init__(self, scope: Scope) -> None:
        self._gone: Gone = scope[GONE]
        self._owner = asyncio.current_task()
        self.is_gone = False

    @property
    def is_late(self) -> bool:
        """True when the client went away before the task began."""
        return self._gone.is_told

    def start(self) -> None:
        """Begin to watch; only once the body was read to its end."""
        self._gone.callback = self._cancel

    def stop(self) -> None:
        """The answer is complete, or will not be given."""
        self._gone.callback = None

    def _cancel(self) -> None:
        self.is_gone = True
        if self._owner is not None:
            self._owner.cancel()


class Call:
    """Written by the proxy and the forwarder, in the one task that serves the request.

    `send` and `watch` belong to that task and are there once it took the call over with `attach`.
    """

    __slots__ = ("_holding", "_inflight", "applied_wait_s", "body", "group", "incoming", "is_named", "model",
                 "offered_wait_s", "parked_s", "provisioning", "request_id", "retries", "scope", "send", "started",
                 "status", "watch", "worker")  # fmt: skip

    send: Send
    watch: Watch

    def __init__(self, scope: Scope, started: float, inflight: Inflight, *, is_named: bool) -> None:
        self.scope = scope
        self.started = started
        self.is_named = is_named
        self.incoming: Incoming | None = None
        self.body: Body | None = None
        self.request_id = b""
        self.status = 500
        self.model = ""
        self.group: Group = OTHER
        self.worker = ""
        self.provisioning = False
        self.retries = 0
        self.parked_s = 0.0
        self.applied_wait_s = 0
        self.offered_wait_s = 0
        self._inflight = inflight
        self._holding: Forward | None = None

    def attach(self, scope: Scope, send: Send) -> None:
        """The running task serves this request from here on."""
        self.scope = scope
        self.send = send
        self.watch = Watch(scope)

    def hold(self, to: Forward) -> None:
        """Count this request as being on its way to a worker."""
        self.release()
        worker = to.worker
        self._inflight.enter(worker, to.pool)
        self._holding = to
        self.worker, self.group = worker.name, worker.group

    def release(self) -> None:
        """The request is on its way to nobody."""
        if self._holding is not None:
            self._inflight.leave(self._holding.worker, self._holding.pool)
            self._holding = None

    @property
    def arrival(self) -> Arrival:
        """How its client came."""
        if self.applied_wait_s:
            return Arrival.STILL
        return Arrival.AGAIN if self.incoming is not None and self.incoming.attempt > 1 else Arrival.NEW

    def outcome(self, now: float) -> Outcome:
        """The record of this request."""
        operation = self.scope["path"].split("/", 3)[2]
        ask = Ask(ModelRef("")) if self.incoming is None else self.incoming.ask
        return Outcome(
            operation=operation,
            method=self.scope["method"],
            status=self.status,
            model=self.model or ask.model.name,
            pool=ask.pool or "",
            profile=ask.profile or "",
            group=self.group,
            worker=self.worker,
            latency_s=now - self.started,
            body_bytes=0 if self.body is None else self.body.size_bytes,
            request_id=self.request_id.decode(),
            caller=ask.caller.id,
            provisioning=self.provisioning,
            retries=self.retries,
            parked_s=self.parked_s,
        )
