"""Bounded concurrency with the order kept. Knows nothing of texts or clusters."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from sie_cli.threads import in_thread

T = TypeVar("T")
R = TypeVar("R")


def chunked(source: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size`, the last one shorter; reads no further than it gives."""
    while chunk := list(islice(source, size)):
        yield chunk


async def in_order(
    inputs: Iterator[T], work: Callable[[T], Awaitable[R]], limit: int, stop: asyncio.Event
) -> AsyncIterator[tuple[T, R]]:
    """Each input with its result, in the order of the inputs, at most `limit` of them under way or waiting for others.

    Inputs are read in a thread, so that a slow one holds up neither results nor signals. Once `stop` is set no further
    input is taken; what is under way is finished. The first failure ends it all.
    """
    window: deque[tuple[T, asyncio.Future[R]]] = deque()
    reading: asyncio.Future[T | None] | None = None
    halt = asyncio.ensure_future(stop.wait())
    is_open = True
    try:
        while True:
            is_open = is_open and not stop.is_set()
            if is_open and reading is None and len(window) < limit:
                reading = in_thread(lambda: next(inputs, None))
            awaited: list[asyncio.Future[Any]] = [task for _, task in islice(window, 1)]
            awaited += [task for task in (reading, halt) if is_open and task is not None]
            if not awaited or (not is_open and not window):
                return
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done() and is_open:
                given, reading = reading.result(), None
                is_open = given is not None
                if given is not None:
                    window.append((given, asyncio.ensure_future(work(given))))
            while window and window[0][1].done():
                done, task = window.popleft()
                yield done, task.result()
    finally:
        tasks: list[asyncio.Future[Any]] = [halt, *(task for _, task in window)]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
