"""Connections to workers: a bounded keep-alive pool for each, and the two ways to send a request."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from sie_router.data.connection import Came, Connection, ConnectionCut, Reply, WorkerUnreachable

MAX_IDLE_S: Final = 30.0
_ONE_WRITE_BYTES: Final = 64 << 10


class WorkerBusy(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """This router holds as many connections to the worker as it may."""


class Pool:
    """The connections to one worker: all that stand or are being made, and those of them without a request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.connections: set[Connection] = set()
        self.idle: deque[Connection] = deque()


class Upstream:
    """All connections to all workers. Owner of every socket it opens; `close` ends them."""

    def __init__(self, *, connect_timeout_s: float, max_per_worker: int, clock: Callable[[], float]) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._max_per_worker = max_per_worker
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self._empty = asyncio.Event()

    def begin(
        self, url: str, head: bytes, body: bytes, budget_s: float, tell: Callable[[Came], None]
    ) -> Connection | None:
        """Send a whole request on a kept connection; None, and nothing was done, when there is none.

        `tell` hears once what came of it.
        """
        pool = self._pools.get(url)
        kept = None if pool is None else self._take(pool)
        if kept is not None:
            kept.start(budget_s, tell)
            _write(kept, head, body)
        return kept

    async def send(self, url: str, head: bytes, body: bytes, budget_s: float) -> Reply:
        """Send a whole request and wait for the reply (for its head, when it is long).

        A kept connection may be closed by the worker just as it is used: then, and only if not one byte had come
        back, the request goes out again on a new connection.

        Raises:
            WorkerUnreachable, WorkerBusy: nothing was sent.
            ConnectionCut, BudgetSpent: see there.
        """
        kept = self._take(self._pool(url))
        if kept is not None:
            try:
                return await self._exchange(kept, head, body, budget_s)
            except ConnectionCut as cut:
                if cut.received:
                    raise
        return await self._exchange(await self._connect(url), head, body, budget_s)

    async def stream(self, url: str, head: bytes, pieces: AsyncIterator[bytes], budget_s: float) -> Reply:
        """Send a request whose body comes in pieces, which cannot be sent twice; the rest as in `send`."""
        connection = await self._connect(url)
        reply = _reply(connection, budget_s)
        sender = asyncio.create_task(_send_pieces(connection, head, pieces))
        both: set[asyncio.Future[Any]] = {reply, sender}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if sender.done() and not reply.done():
                sender.result()
            return await reply
        except BaseException:
            reply.cancel()
            connection.give_up()
            raise
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    @property
    def urls(self) -> Collection[str]:
        """The workers to which connections stand or are being made."""
        return tuple(self._pools)

    def cut(self, url: str, reason: str) -> int:
        """Close all connections to a worker that is lost; how many of them had a request."""
        pool = self._pools[url]
        busy = len(pool.connections) - len(pool.idle)
        for connection in tuple(pool.connections):
            connection.cut(reason)
        return busy

    def close_idle(self) -> None:
        """Close connections nobody used for `MAX_IDLE_S`."""
        oldest = self._clock() - MAX_IDLE_S
        for pool in self._pools.values():
            while pool.idle and (pool.idle[0].idle_since < oldest or not pool.idle[0].is_usable):
                pool.idle.popleft().give_up()

    async def close(self) -> None:
        """Close every connection."""
        for pool in tuple(self._pools.values()):
            for connection in tuple(pool.connections):
                connection.give_up()
        if self._pools:
            await self._empty.wait()

    def open_connections(self) -> int:
        """Connections that stand or are being made, over all workers."""
        return sum(len(pool.connections) for pool in self._pools.values())

    async def _exchange(self, connection: Connection, head: bytes, body: bytes, budget_s: float) -> Reply:
        reply = _reply(connection, budget_s)
        _write(connection, head, body)
        try:
            return await reply
        except asyncio.CancelledError:
            connection.give_up()
            raise

    def _pool(self, url: str) -> Pool:
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url)
            self._empty.clear()
        return pool

    def _take(self, pool: Pool) -> Connection | None:
        while pool.idle:
            connection = pool.idle.pop()  # the latest one: its worker is least likely to have closed it
            if connection.is_usable:
                return connection
        return None

    async def _connect(self, url: str) -> Connection:
        pool = self._pool(url)
        if len(pool.connections) >= self._max_per_worker:
            raise WorkerBusy(f"{len(pool.connections)} connections to {url} are in use")
        loop = asyncio.get_running_loop()
        connection = Connection(loop, self._freed(pool), self._closed(url, pool))
        pool.connections.add(connection)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: connection, pool.host, pool.port)
        except (OSError, TimeoutError) as error:
            self._closed(url, pool)(connection)
            raise WorkerUnreachable(f"cannot connect to {url}: {error or 'no answer in time'}") from error
        except asyncio.CancelledError:
            connection.give_up()
            self._closed(url, pool)(connection)
            raise
        return connection

    def _freed(self, pool: Pool) -> Callable[[Connection], None]:
        def freed(connection: Connection) -> None:
            connection.idle_since = self._clock()
            pool.idle.append(connection)

        return freed

    def _closed(self, url: str, pool: Pool) -> Callable[[Connection], None]:
        def closed(connection: Connection) -> None:
            if connection not in pool.connections:
                return  # an attempt that was given up may still report its end
            pool.connections.remove(connection)
            with suppress(ValueError):
                pool.idle.remove(connection)
            if not pool.connections:
                del self._pools[url]
                if not self._pools:
                    self._empty.set()

        return closed


def _reply(connection: Connection, budget_s: float) -> asyncio.Future[Reply]:
    """Begin a request, for a task that waits."""
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def tell(came: Came) -> None:
        if reply.done():
            return
        if isinstance(came, Reply):
            reply.set_result(came)
        else:
            reply.set_exception(came)

    connection.start(budget_s, tell)
    return reply


def _write(connection: Connection, head: bytes, body: bytes) -> None:
    if len(body) <= _ONE_WRITE_BYTES:
        connection.write(head + body)
    else:
        connection.write(head)
        connection.write(body)


async def _send_pieces(connection: Connection, head: bytes, pieces: AsyncIterator[bytes]) -> None:
    await connection.write_slowly(head)
    async for piece in pieces:
        await connection.write_slowly(piece)
    connection.sent()
