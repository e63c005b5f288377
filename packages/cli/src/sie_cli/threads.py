"""Blocking work beside an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Run blocking work in a thread that does not keep the program alive when nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(settler: Callable[[], None]) -> None:
        if not future.done():
            settler()

    def report(settler: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program was interrupted and has ended
            loop.call_soon_threadsafe(settle, settler)

    def body() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is awaited
            failure = error
            report(lambda: future.set_exception(failure))
        else:
            report(lambda: future.set_result(result))

    threading.Thread(target=body, daemon=True).start()
    return future
