"""Workers that were named on the command line."""

from collections.abc import AsyncIterator, Iterable


class StaticDiscovery:
    """A set of URLs that never changes."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = frozenset(urls)

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the set once."""
        yield self._urls
