"""Work that blocks for long, in threads that the process does not wait for at exit: a download cannot be stopped."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NoThreadError(RuntimeError):
    """The system has no thread left: the work did not begin."""


async def in_thread(
    work: Callable[[], T],
    *,
    late: Callable[[T], None] = lambda _: None,
    ended: Callable[[], None] = lambda: None,
) -> T:
    """Run in a thread of its own. Cancelling stops the wait, not the work.

    `ended` is called on the event loop when the work is over, however long after that. What the work gives when nobody
    waits any more goes to `late`, in a thread.

    Raises:
        NoThreadError: nothing was done; `ended` was called.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def is_late(value: T) -> None:
        threading.Thread(target=late, args=(value,), name="late", daemon=True).start()

    def give(value: T) -> None:
        ended()
        if not result.done():
            result.set_result(value)
        else:
            is_late(value)

    def fail(error: BaseException) -> None:
        ended()
        if not result.done():
            result.set_exception(error)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - it is raised again where the work is awaited
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(give, value)

    try:
        threading.Thread(target=run, name="load", daemon=True).start()
    except RuntimeError as error:
        ended()
        raise NoThreadError(str(error)) from error
    return await _taken(result, is_late)


async def _taken(result: "asyncio.Future[T]", is_late: Callable[[T], None]) -> T:
    """What comes; if the wait ends after it came and before it was taken, it is late as well."""
    try:
        return await result
    except asyncio.CancelledError:
        if not result.cancelled() and result.exception() is None:
            is_late(result.result())
        raise
