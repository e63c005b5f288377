"""Workers behind a name: every address the name resolves to is one, and the name is asked again and again."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from sie_router.control.discovery import Endpoints

SCHEME: Final = "dns+http"
EVERY_S: Final = 5.0
_NOBODY: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

Resolve = Callable[[str, int], Awaitable[frozenset[str]]]

logger = logging.getLogger(__name__)


async def resolve(host: str, port: int) -> frozenset[str]:
    """The URLs behind a name; empty when nobody is. One family where a name has both: they are the same workers.

    Raises:
        OSError: the resolver does not know.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NOBODY:
            return frozenset()
        raise
    addresses = {info[4][0]: info[0] for info in found}
    family = socket.AF_INET if socket.AF_INET in addresses.values() else socket.AF_INET6
    return frozenset(worker_url(str(address), port) for address, kind in addresses.items() if kind is family)


def worker_url(address: str, port: int) -> str:
    """The base URL of a worker at an IPv4 or IPv6 address."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class DnsDiscovery:
    """One URL of the form dns+http://HOST:PORT.

    Never more than one lookup at a time; how long it may take is the resolver's business, and meanwhile the last
    answer stands. `draw` is uniform in [0, 1).
    """

    def __init__(
        self, url: str, draw: Callable[[], float], every_s: float = EVERY_S, resolve: Resolve = resolve
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._draw = draw
        self._every_s = every_s
        self._resolve = resolve

    async def watch(self) -> AsyncIterator[Endpoints]:
        """Yield the addresses each time they change; never ends."""
        known: frozenset[str] | None = None
        while True:
            try:
                urls = await self._resolve(self._host, self._port)
            except OSError as error:
                logger.warning("cannot resolve '%s', the last answer stands: %s", self._host, error)
            else:
                if urls != known:
                    known = urls
                    yield Endpoints(urls)
            await asyncio.sleep(self._every_s * (0.5 + self._draw() / 2))
