"""Gives up requests to workers that are not heard of any more.

A worker that hangs keeps its connections: without this, its requests would wait until their time is over. Given up,
they go to another worker like those whose connection broke.
"""

import logging
from collections.abc import Callable

from sie_protocol.status import STALE_AFTER_S
from sie_router.core.fleet import Fleet
from sie_router.data.upstream import Upstream

logger = logging.getLogger(__name__)


class StaleWorkers:
    """Looks at the workers that have connections. `clock` is monotonic time in seconds.

    Nobody listens to a worker that discovery has dropped, so it counts as silent from then on. It may be finishing what
    it has, and gets as long for it as any other may be silent.
    """

    def __init__(self, snapshot: Callable[[], Fleet], upstream: Upstream, clock: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._upstream = upstream
        self._clock = clock
        self._dropped: dict[str, float] = {}

    def look(self) -> None:
        """Give up what is on its way to workers that have been silent for too long."""
        workers, now = self._snapshot().workers, self._clock()
        self._dropped = {url: self._dropped.get(url, now) for url in self._upstream.urls if url not in workers}
        for url in self._upstream.urls:
            since = self._dropped.get(url)
            if workers[url].is_stale if since is None else now - since > STALE_AFTER_S:
                given_up = self._upstream.cut(url, f"nothing was heard of the worker for {STALE_AFTER_S:g} s")
                logger.warning("nothing was heard of %s for %g s: gave up %d requests", url, STALE_AFTER_S, given_up)
