"""Composition root: builds every part once and hands it what it needs. No logic."""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from sie_protocol.status import ClusterStatus
from sie_protocol.versions import VERSION
from sie_router.api.cluster_ws import ClusterWatch
from sie_router.api.explain import explain_routes
from sie_router.api.front import Front
from sie_router.api.health import Phase, health_routes
from sie_router.api.inference import InferenceRoute, NamedRoute, describe
from sie_router.api.metrics import Counters, RouterCollector, Task, metric_routes
from sie_router.api.metrics_flow import FlowCollector
from sie_router.api.models import model_routes
from sie_router.api.page import page_routes
from sie_router.api.pools import Limits, Pools, pool_routes
from sie_router.api.views import cluster_status
from sie_router.control.catalog_files import CatalogFiles
from sie_router.control.discovery import Combined, Discovery
from sie_router.control.discovery_dns import SCHEME, DnsDiscovery
from sie_router.control.discovery_kube import KubeDiscovery
from sie_router.control.discovery_static import StaticDiscovery
from sie_router.control.feed import follow
from sie_router.control.kube import KubeApi, connect
from sie_router.control.pools import PoolFinder, PoolStore, follow_pools
from sie_router.control.pools_file import FilePools
from sie_router.control.pools_kube import KubePools
from sie_router.control.pools_memory import MemoryPools
from sie_router.control.reaper import Reaper
from sie_router.control.store import FleetStore
from sie_router.control.supervise import supervise
from sie_router.control.ticker import tick
from sie_router.control.unconfigured import UnconfiguredWorkers
from sie_router.core.catalog import AnyModel, Models, UnreadCatalog
from sie_router.core.events import CatalogPut, Tick
from sie_router.core.fleet import Source
from sie_router.core.index import empty_fleet
from sie_router.core.pools import Caller
from sie_router.data.admission import Admission
from sie_router.data.fast_path import FastPath
from sie_router.data.forward import Forwarder, Plane
from sie_router.data.health import OutlierDetector
from sie_router.data.inflight import Inflight
from sie_router.data.outcome import Outcome
from sie_router.data.parked import ParkedRequests
from sie_router.data.parking import Parking
from sie_router.data.proxy import Proxy, Terms
from sie_router.data.retries import RetryBudget
from sie_router.data.stale import StaleWorkers
from sie_router.data.upstream import Upstream
from sie_router.edge import errors
from sie_router.edge.auth import Auth, Tokens
from sie_router.settings import Settings

# Looked up in the environment for every request otherwise; ignored by versions of FastAPI that have no telemetry.
_NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}


class RouterApp:
    """One router. `asgi` is the application to serve; its lifespan runs everything that is not a request.

    `fast_path` takes most requests past it; None with tracing.
    """

    def __init__(self, settings: Settings, audit: Callable[[Outcome], None]) -> None:
        self._settings = settings
        self.phase = Phase.STARTING
        self.catalog = self._catalog_files()
        models: Models = AnyModel() if self.catalog is None else UnreadCatalog()
        fleet = empty_fleet(settings.groups, settings.profiles, settings.lease_s)
        fleet = replace(fleet, models=models, unheard=_unheard(settings))
        self.store = FleetStore(fleet, time.monotonic)
        self.inflight = Inflight(time.monotonic)
        self.health = OutlierDetector(self.store.publish, time.monotonic, random.random)
        self.upstream = Upstream(
            connect_timeout_s=settings.connect_timeout_s,
            max_per_worker=settings.max_connections_per_worker,
            clock=time.monotonic,
        )
        self._unconfigured = UnconfiguredWorkers(self.store.snapshot)
        self._stale = StaleWorkers(self.store.snapshot, self.upstream, time.monotonic)
        self.counters = Counters()
        self.retries = RetryBudget(time.monotonic())
        self.parked = ParkedRequests(
            self.store.snapshot, time.monotonic, max_requests=settings.max_waiting, max_bytes=settings.max_waiting_bytes
        )
        self.store.watch(self.parked.fleet_changed)
        self._audit = audit
        self._kube: KubeApi | None = None if settings.kubernetes is None else connect(settings.kubernetes.kubeconfig)
        self.pools = self._pool_store()
        if self.catalog is not None:
            self.catalog.look()
        tokens = Tokens(settings.auth.tokens, settings.auth.admin_token, settings.auth.proxy_secret)
        exempt = settings.auth.exempt
        proxy, self.fast_path = self._ways(tokens)
        front = Front([InferenceRoute(proxy), NamedRoute(proxy.named)], self._build())
        self._closing: list[Callable[[], None]] = []
        self.asgi = self._traced(Auth(front, tokens, exempt))

    @property
    def is_draining(self) -> bool:
        """True once `drain` was called."""
        return self.phase is Phase.DRAINING

    def drain(self) -> None:
        """Tell load balancers to go elsewhere; requests are still served, except that nobody waits any longer."""
        self.phase = Phase.DRAINING
        self.parked.close()

    def _build(self) -> FastAPI:
        app = FastAPI(title="SIE router", version=VERSION, lifespan=self._lifespan, telemetry=_NO_TELEMETRY)
        app.router.redirect_slashes = False  # an address with http:// in it is wrong behind a proxy with TLS
        snapshot = self.store.snapshot
        app.include_router(health_routes(snapshot, self._status, self._phase_now))
        app.include_router(model_routes(snapshot))
        app.include_router(explain_routes(snapshot, lambda: self.inflight.workers, random.random))
        settings = self._settings
        limits = Limits(
            max_pools=settings.max_pools,
            max_workers=settings.max_pool_workers,
            max_pools_per_owner=settings.max_pools_per_owner,
            max_workers_per_owner=settings.max_workers_per_owner,
        )
        app.include_router(pool_routes(Pools(self.pools, snapshot, self.store.publish, time.time, limits)))
        collector = RouterCollector(
            self.counters, snapshot, self.inflight, self.health.ejections, time.monotonic, time.time
        )
        app.include_router(metric_routes(collector, FlowCollector(self.parked, self.retries)))
        app.include_router(page_routes(self._status))
        app.router.routes.append(ClusterWatch(self._status, time.monotonic).route())
        app.router.routes.append(errors.no_socket())
        errors.install(app)
        describe(app)
        return app

    def _catalog_files(self) -> CatalogFiles | None:
        models_dir, bundles_dir = self._settings.models_dir, self._settings.bundles_dir
        if models_dir is None or bundles_dir is None:
            return None
        return CatalogFiles(models_dir, bundles_dir, lambda catalog: self.store.publish(CatalogPut(catalog)))

    def _phase_now(self) -> Phase:
        fleet = self.store.snapshot()
        if self.phase is not Phase.SERVING:
            return self.phase
        if fleet.unheard:
            return Phase.STARTING
        return Phase.UNREAD if isinstance(fleet.models, UnreadCatalog) else Phase.SERVING

    def _traced(self, app: ASGIApp) -> ASGIApp:
        if not self._settings.tracing:
            return app
        try:
            from sie_protocol.tracing import Tracing  # noqa: PLC0415 - costs memory and time where nobody wants it
        except ImportError as error:
            raise ValueError(f"tracing needs more packages, install sie-router[otel]: {error}") from error
        tracing = Tracing("sie-router")
        self._closing.append(tracing.close)
        return tracing.around(app)

    def _pool_store(self) -> PoolStore:
        settings, kube = self._settings, self._settings.kubernetes
        if self._kube is not None and kube is not None:
            most = settings.max_pool_workers
            return KubePools(
                self._kube, random.random, lease_s=settings.lease_s, release=kube.release, max_workers=most
            )
        if settings.pools_file is None:
            return MemoryPools()
        return FilePools(settings.pools_file, settings.max_pool_workers)

    def _ways(self, tokens: Tokens) -> tuple[Proxy, FastPath | None]:
        settings = self._settings
        find_pool = PoolFinder(self.pools, self.store.publish).find
        prefix, numbers = secrets.token_hex(6), itertools.count(1)
        snapshot, publish = self.store.snapshot, self.store.publish
        plane = Plane(
            snapshot, publish, time.monotonic, random.random, find_pool, lambda: f"{prefix}-{next(numbers):x}"
        )
        forwarder = Forwarder(
            plane, self.inflight, self.health, self.upstream, self.retries, settings.request_timeout_s
        )
        parking = Parking(
            plane, forwarder, self.parked, max_wait_s=settings.max_wait_s, retry_after_s=settings.retry_after_s
        )
        admission = Admission(settings.max_concurrency, settings.max_held_bytes, settings.rate)
        proxy = Proxy(
            plane=plane,
            forwarder=forwarder,
            inflight=self.inflight,
            admission=admission,
            parking=parking,
            terms=Terms(settings.retry_after_s, settings.estimated_wait_s, settings.max_body_bytes),
            record=self._record,
        )
        fast_path = FastPath(
            plane=plane,
            forwarder=forwarder,
            inflight=self.inflight,
            admission=admission,
            see=tokens.see,
            resume=proxy.resume,
            record=self._record,
        )
        return proxy, None if settings.tracing else fast_path  # spans are made around the application

    def _record(self, outcome: Outcome) -> None:
        self.counters.count(outcome)
        self._audit(outcome)

    def _status(self, caller: Caller) -> ClusterStatus:
        load, rate = self.inflight.workers, self.inflight.sent_per_second()
        return cluster_status(self.store.snapshot(), load, rate, time.time(), caller)

    def _pass_time(self) -> None:
        self.store.publish(Tick())
        self._stale.look()
        self._unconfigured.look()
        fleet = self.store.snapshot()
        self.health.forget(fleet.workers)
        self.inflight.forget(fleet.pools)

    def _sources(self) -> list[Discovery]:
        settings, kube = self._settings, self._settings.kubernetes
        named = [url for url in settings.workers if url.startswith(SCHEME)]
        sources: list[Discovery] = [StaticDiscovery(url for url in settings.workers if url not in named)]
        sources += [DnsDiscovery(url, random.random) for url in named]
        if self._kube is not None and kube is not None:
            sources.append(KubeDiscovery(self._kube, kube.namespace, kube.services, kube.port, random.random))
        return sources

    def _background(self) -> Mapping[Task, Callable[[], Coroutine[None, None, None]]]:
        """Everything that is not a request. Each begins anew with what the store knows already."""
        publish, snapshot = self.store.publish, self.store.snapshot
        followed = set[str]()
        tasks: dict[Task, Callable[[], Coroutine[None, None, None]]] = {
            Task.WORKERS: lambda: follow(Combined(self._sources(), random.random), publish, random.random),
            Task.POOLS: lambda: follow_pools(self.pools, publish, followed),
            Task.REAPER: lambda: Reaper(self.pools, snapshot, publish, time.time, followed).run(),
            Task.CLOCK: lambda: tick(self._pass_time, self.upstream.close_idle),
        }
        if self.catalog is not None:
            tasks[Task.CATALOGUE] = self.catalog.follow
        return tasks

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for close in self._closing:
                stack.push_async_callback(asyncio.to_thread, close)
            stack.push_async_callback(self.upstream.close)
            if self._kube is not None:
                stack.push_async_callback(self._kube.close)
            for name, begin in self._background().items():
                task = asyncio.create_task(supervise(name, begin, self.counters.restarts, random.random), name=name)
                stack.push_async_callback(_ended, task)
            self.phase = Phase.SERVING
            yield
            self.drain()


def _unheard(settings: Settings) -> frozenset[Source]:
    """What there is to hear of before the first request; pools in memory ended with the last process."""
    is_kube = settings.kubernetes is not None
    awaited = {Source.POOLS: is_kube or settings.pools_file is not None, Source.WORKERS: is_kube or settings.workers}
    return frozenset(source for source, is_any in awaited.items() if is_any)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
