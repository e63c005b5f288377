"""Where worker URLs come from, and how several sources become one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

RESTART_S: Final = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """All workers at one moment, by URL: those that may get requests, and those that are on their way out.

    `is_whole` is false while some source has not said anything yet.
    """

    serving: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    is_whole: bool = True


class Discovery(Protocol):
    """A source of worker URLs."""

    def watch(self) -> AsyncIterator[Endpoints]:
        """Yield all endpoints each time they change; may end when they will never change again.

        An outage of the source is no change: the last endpoints stand until the source says otherwise.
        """
        ...


class Combined:
    """Several sources as one. Each is supervised: what breaks is begun again, and the others go on."""

    def __init__(self, sources: Sequence[Discovery], draw: Callable[[], float]) -> None:
        self._sources = sources
        self._draw = draw
        self._latest: dict[int, Endpoints] = {}  # only `_run` writes it
        self._news = asyncio.Event()

    async def watch(self) -> AsyncIterator[Endpoints]:
        """Yield the union; whoever leaves by one source leaves."""
        async with asyncio.TaskGroup() as group:
            for number, source in enumerate(self._sources):
                group.create_task(self._run(number, source), name=f"discovery {number}")
            while True:
                await self._news.wait()
                self._news.clear()
                yield replace(_union(self._latest.values()), is_whole=len(self._latest) == len(self._sources))

    async def _run(self, number: int, source: Discovery) -> None:
        while True:
            try:
                async for endpoints in source.watch():
                    self._latest[number] = endpoints
                    self._news.set()
            except Exception:
                logger.exception("a source of workers broke; what it said last stands")
                await asyncio.sleep(RESTART_S * (0.5 + self._draw()))
            else:
                return


def _union(all_of_them: Iterable[Endpoints]) -> Endpoints:
    serving, leaving = set[str](), set[str]()
    for endpoints in all_of_them:
        serving |= endpoints.serving
        leaving |= endpoints.leaving
    return Endpoints(frozenset(serving - leaving), frozenset(leaving))
