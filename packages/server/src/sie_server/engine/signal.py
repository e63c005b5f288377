"""Tells watchers that something changed, without saying what. Lives on the event loop's thread."""

import asyncio


class Signal:
    """A counter that can be waited for. Notifying costs next to nothing while nobody waits."""

    def __init__(self) -> None:
        self._version = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._version

    def notify(self) -> None:
        """Something changed."""
        self._version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, seen: int) -> None:
        """Return once the version is no longer the one that was seen."""
        while self._version == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
