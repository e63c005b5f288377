"""Workers behind headless Services: the endpoints of their EndpointSlices, as they change.

A pod that is not ready yet is listed as well: its own status frames say within milliseconds when it is, the cluster
only after its next probe. A pod that is terminating leaves: it finishes what it has and gets nothing new.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from sie_router.control.discovery import Endpoints
from sie_router.control.discovery_dns import worker_url
from sie_router.control.kube import KubeApi, Pace, follow
from sie_router.control.kube_objects import ENDPOINT_SLICES, Endpoint, EndpointSlice

SERVICE_LABEL: Final = "kubernetes.io/service-name"

logger = logging.getLogger(__name__)


class KubeDiscovery:
    """The workers of some Services. `port` is a number or the name of a port of theirs, `draw` uniform in [0, 1)."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        services: Iterable[str],
        port: str,
        draw: Callable[[], float],
        pace: Pace | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._selector = f"{SERVICE_LABEL} in ({','.join(sorted(services))})"
        self._port = port
        self._draw = draw
        self._pace = pace

    async def watch(self) -> AsyncIterator[Endpoints]:
        """Yield all endpoints each time they change; never ends. A Service that does not exist has none."""
        known: Endpoints | None = None
        sets = follow(
            self._api,
            ENDPOINT_SLICES,
            draw=self._draw,
            namespace=self._namespace,
            selector=self._selector,
            pace=self._pace,
        )
        async with aclosing(sets) as slices_over_time:
            async for slices in slices_over_time:
                fresh = endpoints_of(slices.values(), self._port)
                if fresh != known:
                    logger.info("endpoints: %d serving, %d leaving", len(fresh.serving), len(fresh.leaving))
                    known = fresh
                    yield fresh


def endpoints_of(slices: Iterable[EndpointSlice], port: str) -> Endpoints:
    """The workers of these slices, each once.

    While the cluster moves an endpoint from one slice to another, both hold it: it leaves only if both say so. A pod of
    a dual-stack Service is in a slice of each family, and is reached by IPv4.
    """
    by_pod: dict[str, tuple[str, str]] = {}
    staying: set[str] = set()
    for each in slices:
        number = _port_of(each, port)
        for endpoint in each.endpoints or () if number is not None else ():
            if not endpoint.addresses:
                continue
            url = worker_url(endpoint.addresses[0], number or 0)
            pod = _pod(endpoint) or url
            by_pod[pod] = min(by_pod.get(pod, (each.address_type, url)), (each.address_type, url))
            if not endpoint.conditions.terminating:
                staying.add(pod)
    serving = frozenset(by_pod[pod][1] for pod in staying)
    return Endpoints(serving, frozenset(url for _, url in by_pod.values()) - serving)


def _pod(endpoint: Endpoint) -> str:
    return "" if endpoint.target_ref is None else endpoint.target_ref.uid


def _port_of(each: EndpointSlice, port: str) -> int | None:
    if port.isdecimal():
        return int(port)
    return next((known.port for known in each.ports or () if known.name == port), None)
