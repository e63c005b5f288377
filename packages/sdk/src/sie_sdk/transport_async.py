"""Sends requests for the tasks of one event loop: one request in, one `Answer` or `Lost` out."""

import asyncio

import httpx

from sie_sdk import wire
from sie_sdk.messages import Outcome, Request
from sie_sdk.settings import Settings


class AsyncTransport:
    """The connections of one client, or those of `given`, which stays open. Closing it ends the requests in flight."""

    def __init__(self, settings: Settings, given: httpx.AsyncClient | None) -> None:
        wire.check_kind(given, httpx.AsyncClient)
        self._is_own = given is None
        self._http = given or httpx.AsyncClient(limits=wire.limits(settings.max_connections))
        self._writer = wire.Writer(settings) if given is None else wire.Writer(settings, given.build_request)
        self._in_flight: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._closed = False

    async def send(self, request: Request, timeout_s: float) -> Outcome:
        """Send once and read the whole answer within `timeout_s`."""
        if self._closed or self._http.is_closed:
            return wire.CLOSED
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                self._in_flight.add(limit)
                response = await self._http.send(self._writer.write(request, timeout_s), follow_redirects=False)
        except TimeoutError:
            return wire.CLOSED if self._closed else wire.timed_out(timeout_s)
        except httpx.RequestError as error:
            return wire.CLOSED if self._closed else wire.lost(error, timeout_s)
        finally:
            self._in_flight.discard(limit)
            if not self._in_flight:
                self._idle.set()
        return wire.read(response, response.content)

    async def close(self) -> None:
        """End requests in flight, then close all connections; may be called more than once."""
        self._closed = True
        for limit in tuple(self._in_flight):
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()
        if self._is_own:
            await self._http.aclose()
