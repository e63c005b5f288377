"""Where worker URLs come from."""

from collections.abc import AsyncIterator
from typing import Protocol


class Discovery(Protocol):
    """A source of worker URLs."""

    def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the whole set of URLs each time it changes; may end when it will never change again."""
        ...
