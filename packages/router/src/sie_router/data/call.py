"""One request on its way through the proxy: what is known of it so far, and what must be released at its end."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sie_protocol.target import ModelRef
from sie_router.core.fleet import OTHER, Group, Worker
from sie_router.core.route import Ask
from sie_router.data.body import Body, Receive
from sie_router.data.incoming import Incoming, Scope
from sie_router.data.inflight import Inflight
from sie_router.data.outcome import Outcome

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# A watcher costs a task. An answer that comes sooner than this is cheaper sent to nobody than watched for.
WATCH_AFTER_S: Final = 0.1


class Watch:
    """Cancels the running task when the client goes away while the answer is being made."""

    __slots__ = ("_owner", "_receive", "_task", "_timer", "is_gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._owner = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_gone = False

    def start(self) -> None:
        """Begin to watch; only once the body was read to its end."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """The answer is complete, or will not be given."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._owner is not None:
            self._owner.cancel()


class Call:
    """Written by the proxy and the forwarder, in the one task that serves the request."""

    __slots__ = ("_holding", "_inflight", "applied_wait_s", "body", "group", "held_s", "incoming", "is_named", "model",
                 "provisioning", "request_id", "retries", "scope", "send", "started", "status", "watch",
                 "worker")  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, started: float, inflight: Inflight, *, is_named: bool
    ) -> None:
        self.scope = scope
        self.send = send
        self.started = started
        self.is_named = is_named
        self.watch = Watch(receive)
        self.incoming: Incoming | None = None
        self.body: Body | None = None
        self.request_id = b""
        self.status = 500
        self.model = ""
        self.group: Group = OTHER
        self.worker = ""
        self.provisioning = False
        self.retries = 0
        self.held_s = 0.0
        self.applied_wait_s = 0
        self._inflight = inflight
        self._holding: Worker | None = None

    def hold(self, worker: Worker) -> None:
        """Count this request as being on its way to a worker."""
        self.release()
        self._inflight.enter(worker)
        self._holding = worker
        self.worker, self.group = worker.name, worker.group

    def release(self) -> None:
        """The request is on its way to nobody."""
        if self._holding is not None:
            self._inflight.leave(self._holding)
            self._holding = None

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
            held_s=self.held_s,
        )
