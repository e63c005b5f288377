"""Workers that were named on the command line."""

from collections.abc import AsyncIterator, Iterable

from sie_router.control.discovery import Endpoints


class StaticDiscovery:
    """A set of URLs that never changes."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._endpoints = Endpoints(frozenset(urls))

    async def watch(self) -> AsyncIterator[Endpoints]:
        """Yield the set once."""
        yield self._endpoints
