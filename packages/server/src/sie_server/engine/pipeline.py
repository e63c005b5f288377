"""The CPU pool: tokenising before the device, and whatever else is too long for the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sie_server.adapters.base import Adapter, Input, Labelled, Pair, Prepared, UnreadableImageError
from sie_server.core.scoring import pieces
from sie_server.engine.loop import Clock

# A tokenizer reads so much in some tens of milliseconds; an image is a piece of its own, it may take a second.
PIECE_CHARS: Final = 128 * 1024

T = TypeVar("T")


class Pipeline:
    """Threads for CPU work around the device."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cpu")

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """Run a function off the event loop; also the seconds it took, waiting for a thread included."""
        started = self._clock()
        return await self.run(work), self._clock() - started

    async def prepare(
        self, adapter: Adapter, inputs: Sequence[Input], *, is_query: bool
    ) -> tuple[list[Prepared], float]:
        """Tokenise one request's inputs; also the seconds it took, waiting for a thread included.

        A thread cannot be stopped, so it takes the inputs in pieces and looks after each if anybody still waits.
        """
        is_wanted = True

        def work() -> list[Prepared]:
            prepared: list[Prepared] = []
            for piece in pieces([_size(each) for each in inputs], PIECE_CHARS):
                if not is_wanted:
                    break
                try:
                    prepared += adapter.prepare(inputs[piece], is_query=is_query)
                except UnreadableImageError as error:
                    error.at = piece.start  # an image is a piece of its own
                    raise
            return prepared

        try:
            return await self.timed(work)
        finally:
            is_wanted = False

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.to_thread(self._pool.shutdown)


def _size(given: Input) -> int:
    match given:
        case str():
            return len(given)
        case Pair():
            return len(given.first) + len(given.second)
        case Labelled():
            return len(given.text)
        case _:
            return PIECE_CHARS
