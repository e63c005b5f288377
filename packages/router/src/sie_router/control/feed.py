"""One task per worker: dials its status stream and publishes what it says. Nothing a worker sends can end a feed."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from sie_protocol.headers import WORKER_STATUS
from sie_protocol.status import STALE_AFTER_S, WorkerStatus
from sie_router.control.discovery import Discovery
from sie_router.core.backoff import backoff_s
from sie_router.core.events import Event, WorkerGone, WorkerLost, WorkerSeen, WorkersListed

CONNECT_TIMEOUT_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 0.5
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
MAX_FRAME_BYTES: Final = 1 << 20
LISTING_S: Final = 30.0  # a source of workers may be away for good; a first worker must start all the same
DIALLING_S: Final = 2.0

Publish = Callable[[Event], None]

logger = logging.getLogger(__name__)


class Feed:
    """The status stream of one worker. `run` never returns; cancel it.

    `dialled` is set once the worker said something, or could not be reached.
    """

    def __init__(self, url: str, publish: Publish, draw: Callable[[], float]) -> None:
        self._url = url
        self._publish = publish
        self._draw = draw
        self._decoder = msgspec.json.Decoder(WorkerStatus)
        self._failures = 0
        self._last: WorkerStatus | None = None
        self._is_leaving = False
        self.dialled = asyncio.Event()

    def leave(self) -> None:
        """The worker will end soon: whatever its frames say, it gets nothing new."""
        if not self._is_leaving:
            self._is_leaving = True
            if self._last is not None:
                self._tell(self._last)

    async def run(self) -> None:
        """Follow the worker for as long as it may come back."""
        while True:
            try:
                await self._follow()
            except (OSError, WebSocketException, TimeoutError) as error:
                logger.debug("status stream of %s ended: %s", self._url, error)
            except Exception:
                logger.exception("status stream of %s ended unexpectedly", self._url)
            finally:
                self.dialled.set()
            self._last = None
            self._publish(WorkerLost(self._url))
            await asyncio.sleep(backoff_s(self._failures, self._draw(), FIRST_PAUSE_S, LONGEST_PAUSE_S))
            self._failures += 1

    async def _follow(self) -> None:
        address = "ws" + self._url.removeprefix("http") + WORKER_STATUS
        # No compression and no pings: frames are small, frequent, and themselves the heartbeat. No proxy: workers are
        # neighbours, whatever the environment says about the outside world.
        async with connect(
            address,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            logger=logger,
        ) as stream:
            while True:
                async with asyncio.timeout(STALE_AFTER_S):
                    frame = await stream.recv()
                self._take(frame)

    def _take(self, frame: str | bytes) -> None:
        try:
            status = self._decoder.decode(frame)
        except msgspec.MsgspecError as error:
            # The stream still works; if no frame can be read any more, the worker becomes stale by itself.
            logger.warning("unreadable status frame from %s: %s", self._url, error)
            return
        self._failures = 0
        self._last = status
        self._tell(status)
        self.dialled.set()

    def _tell(self, status: WorkerStatus) -> None:
        told = msgspec.structs.replace(status, draining=True) if self._is_leaving else status
        self._publish(WorkerSeen(self._url, told))


async def follow(
    discovery: Discovery,
    publish: Publish,
    draw: Callable[[], float],
    *,
    listing_s: float = LISTING_S,
    dialling_s: float = DIALLING_S,
) -> None:
    """Keep exactly one feed for each URL the discovery names; never returns, cancel it.

    A worker that leaves keeps the feed it has. One that serves again under the URL of one that left is another one.
    `WorkersListed` comes when the workers of the first whole list were dialled: at most `dialling_s` after that list,
    or `listing_s` after the start without one, in seconds.
    """
    async with asyncio.TaskGroup() as group:
        listed: asyncio.Future[list[Feed]] = asyncio.get_running_loop().create_future()
        group.create_task(_tell_listed(listed, publish, listing_s, dialling_s), name="first list of workers")
        feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        leaving: frozenset[str] = frozenset()
        async for endpoints in discovery.watch():
            staying = endpoints.leaving | (endpoints.serving - leaving)
            for url in feeds.keys() - staying:
                feeds.pop(url)[1].cancel()
                publish(WorkerGone(url))
            for url in endpoints.leaving & feeds.keys():
                feeds[url][0].leave()
            for url in endpoints.serving - feeds.keys():
                feed = Feed(url, publish, draw)
                feeds[url] = feed, group.create_task(feed.run(), name=f"feed {url}")
            leaving = endpoints.leaving
            if endpoints.is_whole and not listed.done():
                listed.set_result([feed for feed, _ in feeds.values()])
        await asyncio.Event().wait()


async def _tell_listed(
    listed: asyncio.Future[list[Feed]], publish: Publish, listing_s: float, dialling_s: float
) -> None:
    try:
        async with asyncio.timeout(listing_s):
            feeds = await listed
    except TimeoutError:
        logger.warning("not every source of workers has said anything within %g s, going on without it", listing_s)
    else:
        await _dialled(feeds, dialling_s)
    publish(WorkersListed())


async def _dialled(feeds: Iterable[Feed], dialling_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(dialling_s):
            for feed in feeds:
                await feed.dialled.wait()
