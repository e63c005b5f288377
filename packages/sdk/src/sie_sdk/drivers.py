"""Runs a flow: the only place that sends and the only one that sleeps. `Link` blocks a thread, `AsyncLink` a task."""

import asyncio
import logging
import random
import threading
import time
from contextlib import suppress

from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION, is_skewed
from sie_sdk.errors import SIEConnectionError
from sie_sdk.messages import Effect, Loss, Lost, OnWait, Outcome, Plan, Resume, Sleep, T
from sie_sdk.settings import Settings

_log = logging.getLogger("sie_sdk")


class Link:
    """A client's way to its server, for any number of threads."""

    def __init__(self, settings: Settings, on_wait: OnWait | None) -> None:
        from sie_sdk.transport_sync import SyncTransport  # noqa: PLC0415 - httpx is half of the import time of the SDK

        self._transport = SyncTransport(settings)
        self._on_wait = on_wait
        self._skew = SkewWarning()
        self._closed = threading.Event()

    def drive(self, plan: Plan[T]) -> T:
        """Run a call to its end and return its result."""
        flow = plan(time.monotonic())
        resume: Resume | None = None
        while True:
            try:
                effect = next(flow) if resume is None else flow.send(resume)
            except StopIteration as stop:
                result: T = stop.value
                return result
            resume = _resume(self._perform(effect))

    def close(self) -> None:
        """End waits and requests of all threads with SIEConnectionError, and close all connections."""
        self._closed.set()
        self._transport.close()

    def _perform(self, effect: Effect) -> Outcome | None:
        if isinstance(effect, Sleep):
            _tell(self._on_wait, effect)
            if self._closed.wait(effect.event.delay_s):
                raise _closed_while(effect)
            return None
        return self._skew.seen(self._transport.send(effect.request, effect.timeout_s))


class AsyncLink:
    """A client's way to its server, for any number of tasks of one event loop."""

    def __init__(self, settings: Settings, on_wait: OnWait | None) -> None:
        from sie_sdk.transport_async import AsyncTransport  # noqa: PLC0415 - httpx is half of the import time of the SDK

        self._transport = AsyncTransport(settings)
        self._on_wait = on_wait
        self._skew = SkewWarning()
        self._closed = asyncio.Event()

    async def adrive(self, plan: Plan[T]) -> T:
        """Run a call to its end and return its result."""
        flow = plan(time.monotonic())
        resume: Resume | None = None
        while True:
            try:
                effect = next(flow) if resume is None else flow.send(resume)
            except StopIteration as stop:
                result: T = stop.value
                return result
            resume = _resume(await self._perform(effect))

    async def close(self) -> None:
        """End waits and requests of all tasks with SIEConnectionError, and close all connections."""
        self._closed.set()
        await self._transport.close()

    async def _perform(self, effect: Effect) -> Outcome | None:
        if isinstance(effect, Sleep):
            _tell(self._on_wait, effect)
            with suppress(TimeoutError):
                async with asyncio.timeout(effect.event.delay_s):
                    await self._closed.wait()
                raise _closed_while(effect)
            return None
        return self._skew.seen(await self._transport.send(effect.request, effect.timeout_s))


class SkewWarning:
    """Warns once per client when the server's version is too far from ours; never fails a call."""

    def __init__(self) -> None:
        self._is_done = False

    def seen(self, outcome: Outcome) -> Outcome:
        """Look at one outcome and hand it on."""
        if not self._is_done and not isinstance(outcome, Lost) and outcome.is_success:
            self._is_done = True
            theirs = outcome.headers.get(SERVER_VERSION.lower())
            if is_skewed(VERSION, theirs):
                _log.warning(
                    "server version %s is far from SDK version %s; align them to avoid surprises", theirs, VERSION
                )
        return outcome


def _resume(outcome: Outcome | None) -> Resume:
    return Resume(time.monotonic(), random.random(), outcome)  # noqa: S311 - spreads retries, guards nothing


def _tell(on_wait: OnWait | None, effect: Sleep) -> None:
    _log.debug("%s", effect.event)
    if on_wait is not None:
        on_wait(effect.event)


def _closed_while(effect: Sleep) -> SIEConnectionError:
    return SIEConnectionError(
        f"the client was closed while a call waited because of {effect.event.reason}; create a new client",
        code=Loss.CLIENT_CLOSED,
    )
