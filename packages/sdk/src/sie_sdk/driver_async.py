"""Runs flows for the tasks of one event loop: a call suspends its task."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from sie_sdk import leases
from sie_sdk.drivers import AsyncClock, Clock, SkewWarning, closed_while, tell, tell_lease
from sie_sdk.errors import SIEError
from sie_sdk.leases import LeaseBook
from sie_sdk.messages import Effect, OnWait, Parallel, Park, Pause, Plan, Resume, Send, Sleep, T
from sie_sdk.settings import Settings
from sie_sdk.single_flight import SingleFlight
from sie_sdk.types import StatusFrame

if TYPE_CHECKING:
    import httpx


async def _set_within(event: asyncio.Event, delay_s: float) -> bool:
    try:
        async with asyncio.timeout(delay_s):
            return await event.wait()
    except TimeoutError:
        return False


class AsyncLink:
    """A client's way to its server, for any number of tasks of one event loop. `book` holds the pools that it keeps.

    Once that loop is closed it may go on in another, as scripts do that call `asyncio.run` twice.
    """

    clock: AsyncClock = Clock(_set_within)

    def __init__(
        self, settings: Settings, on_wait: OnWait | None, http_client: "httpx.AsyncClient | None" = None
    ) -> None:
        self._settings = settings
        self._http_client = http_client
        self._on_wait = on_wait
        self._skew = SkewWarning()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.book = LeaseBook(self._begin_keeping, tell_lease)
        self._set_up()

    async def adrive(self, plan: Plan[T]) -> T:
        """Run a call to its end and return its result.

        Raises:
            RuntimeError: the client is used in two event loops.
        """
        self._enter()
        flow = plan(self.clock.now())
        happened: Resume | None = None
        while True:
            try:
                effect = next(flow) if happened is None else flow.send(happened)
            except StopIteration as stop:
                result: T = stop.value
                return result
            happened = await self._perform(effect)

    async def frames(self, path: str) -> AsyncGenerator[StatusFrame]:
        """The status frames of this path, until the caller stops or the client is closed."""
        from sie_sdk.watch_async import watch  # noqa: PLC0415 - websockets is an extra

        self._enter()
        async with aclosing(watch(self._settings, path, self._closed, self._on_wait, self.clock)) as frames:
            async for frame in frames:
                yield frame

    async def close(self) -> None:
        """End waits and requests of all tasks with SIEConnectionError, and close all connections."""
        if self._is_left:
            self._set_up()  # what was open ended with its loop
            self._keeper = None
        self._closed.set()
        self._flights.close()
        await self._transport.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def _set_up(self) -> None:
        """Make what belongs to one event loop."""
        from sie_sdk.transport_async import AsyncTransport  # noqa: PLC0415 - httpx is half of the import time of the SDK

        self._transport = AsyncTransport(self._settings, self._http_client)
        self._closed = asyncio.Event()
        self._flights = SingleFlight(self._settings.max_connections // 2, asyncio.Event)

    @property
    def _is_left(self) -> bool:
        """True when the loop that this was used in is closed."""
        return self._loop is not None and self._loop.is_closed()

    def _enter(self) -> None:
        running = asyncio.get_running_loop()
        if running is self._loop:
            return
        if self._loop is not None and not (self._loop.is_closed() and self._http_client is None):
            raise RuntimeError(
                "this SIEAsyncClient was used in another event loop; make one for each loop, or share one SIEClient "
                "among threads"
            )
        is_left, is_closed, self._loop = self._is_left, self._closed.is_set(), running
        if is_left and not is_closed:
            self._set_up()
            if self._keeper is not None:
                self._keeper = None
                self._begin_keeping()

    async def _perform(self, effect: Effect) -> Resume:
        match effect:
            case Send(request, timeout_s):
                return self.clock.resume(self._skew.seen(await self._transport.send(request, timeout_s)))
            case Sleep(event):
                tell(self._on_wait, event)
                await self._wait(event.delay_s, f"a call waited because of {event.reason}")
            case Park():
                return await self._park(effect)
            case Pause(delay_s):
                await self._wait(delay_s, "it kept its pools")
            case Parallel():
                return self.clock.resume(results=await self._all(effect))
        return self.clock.resume()

    async def _park(self, effect: Park) -> Resume:
        with self._flights.join(effect.key) as member:
            if member.is_leader:
                tell(self._on_wait, effect.event)
                outcome = self._skew.seen(await self._transport.send(effect.send.request, effect.send.timeout_s))
                member.came(outcome)
                return self.clock.resume(outcome)
            event = effect.instead.event
            tell(self._on_wait, event)
            if not self._closed.is_set():
                await self.clock.wait(member.news, event.delay_s)  # which closing the client rings as well
        if self._closed.is_set():
            raise closed_while(f"a call waited because of {event.reason}")
        return self.clock.resume()

    async def _wait(self, delay_s: float, what: str) -> None:
        if await self.clock.wait(self._closed, delay_s):
            raise closed_while(what)

    async def _all(self, effect: Parallel) -> tuple[Any, ...]:
        results: list[Any] = [None] * len(effect.plans)
        left = iter(range(len(effect.plans)))
        workers = [asyncio.create_task(self._work(effect, left, results)) for _ in range(effect.limit)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return tuple(results)

    async def _work(self, effect: Parallel, left: Iterator[int], results: list[Any]) -> None:
        for at in left:
            try:
                results[at] = await self.adrive(effect.plans[at])
            except SIEError as error:
                results[at] = error
                for _ in left:  # nothing further begins
                    pass
                return
            effect.on_done(at)

    def _begin_keeping(self) -> None:
        if self._keeper is None and not self._closed.is_set():
            plan = leases.keep(self.book, self._settings.question_terms())
            self._keeper = asyncio.create_task(self.adrive(plan), name="sie-sdk-leases")
