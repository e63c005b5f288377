"""Builds a worker from its settings: who gets what, and who closes it. No logic lives here."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from sie_protocol.errors import MODELS_HINT, Problem
from sie_server.adapters.registry import ADAPTERS
from sie_server.adapters.shared import accelerator
from sie_server.api.body import Bodies
from sie_server.api.metrics import Metrics
from sie_server.api.routes import build_api
from sie_server.api.status_ws import Identity, StatusFeed
from sie_server.api.tasks import TaskContext
from sie_server.bounded_http import BoundedHttp
from sie_server.catalog_files import CatalogFiles, Served
from sie_server.core.disk import DiskLimits
from sie_server.core.memory import Reading
from sie_server.engine.device import Device
from sie_server.engine.engine import Engine, EngineLimits, EnginePorts
from sie_server.engine.health import HealthLimits
from sie_server.engine.loading import fetch
from sie_server.engine.loop import QueueLimits
from sie_server.engine.models import LoadPolicy
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.residency import MemoryLimits, MemoryPorts
from sie_server.host_memory import read_memory, return_to_system
from sie_server.server import GRACE_FOR_REPLIES_S, KEEP_ALIVE_S, WorkerServer
from sie_server.settings import Settings
from sie_server.weights.cluster import ClusterCache, open_cluster_cache
from sie_server.weights.download import Source
from sie_server.weights.hub import Hub
from sie_server.weights.local_cache import LocalCache
from sie_server.weights.store import StorePorts, WeightsStore


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker without its sockets."""

    app: ASGIApp
    engine: Engine
    feed: StatusFeed
    metrics: Metrics


@asynccontextmanager
async def worker(settings: Settings, adapters: Mapping[str, str] = ADAPTERS) -> AsyncIterator[Worker]:
    """A worker on the running event loop; everything it holds is closed at the end, in order.

    Raises:
        ValueError: the catalogue cannot be read, or lacks the bundle or a model; tracing lacks its packages.
    """
    files = CatalogFiles(settings.models_dir, settings.bundles_dir, settings.bundle, settings.models)
    catalog = files.read()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        pipeline = Pipeline(max(2, settings.cores), time.monotonic)
        stack.push_async_callback(pipeline.close)
        device = Device(await asyncio.to_thread(accelerator.choose, settings.device), settings.cores)
        stack.push_async_callback(device.close)
        weights = await asyncio.to_thread(_open_weights, settings, metrics)
        ports = _ports(device.kind, settings, metrics, weights)
        try:
            engine = Engine(catalog.models, adapters, device, pipeline, _limits(settings), ports)
        except Problem as problem:
            said = problem.message.removesuffix(f"; {MODELS_HINT}")
            raise ValueError(f"a model to preload or to pin: {said}") from problem
        stack.push_async_callback(engine.close)
        stack.callback(weights.close)  # before the engine's, which waits for loads
        if settings.self_test_interval_s:
            await engine.health.check()
        _run_beside(stack, engine.health.watch(), "health of the device")
        metrics.watch(engine.statuses, engine.memory, device.kind)
        identity = Identity(
            settings.name, settings.machine_profile, settings.pool, settings.bundle, settings.max_batch_items
        )
        feed = StatusFeed(identity, engine, settings.max_watchers, catalog.config_hash)

        def adopt(changed: Served) -> None:
            feed.config_hash = changed.config_hash
            engine.adopt(changed.models)

        _run_beside(stack, files.follow(catalog, adopt, settings.catalog_interval_s), "catalogue")
        bodies = Bodies(settings.max_held_body_bytes)
        answers = Bodies(settings.max_held_answer_bytes, "answers")
        context = TaskContext(
            engine, pipeline, metrics, settings.machine_profile, settings.max_body_bytes, bodies, answers
        )
        app: ASGIApp = build_api(context, feed)
        yield Worker(_traced(app, stack) if settings.tracing else app, engine, feed, metrics)


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        max_batch_items=settings.max_batch_items,
        cpu_batch_tokens=settings.cpu_batch_tokens,
        max_text_chars=settings.max_text_chars,
        queue=QueueLimits(settings.max_queue_items, settings.max_queue_tokens, settings.queue_timeout_s),
        memory=MemoryLimits(settings.memory_threshold_percent, settings.evict_drain_s),
        load_policy=LoadPolicy(settings.preload, settings.pinned, settings.idle_evict_s, settings.load_timeout_s),
        health=HealthLimits(settings.self_test_interval_s, settings.self_test_timeout_s),
        max_loras=settings.max_loras,
        max_request_pixels=settings.max_request_pixels,
    )


def _traced(app: ASGIApp, stack: AsyncExitStack) -> ASGIApp:
    try:
        from sie_protocol.tracing import Tracing  # noqa: PLC0415 - costs memory and time where nobody wants it
    except ImportError as error:
        raise ValueError(f"tracing needs more packages, install sie-server[otel]: {error}") from error
    tracing = Tracing("sie-server")
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing.around(app)


def _open_weights(settings: Settings, metrics: Metrics) -> WeightsStore:
    cluster = _cluster_cache(settings)
    sources: list[Source] = [cluster] if cluster else []
    if settings.hf_fallback:
        sources.append(Hub(settings.hf_token))
    limits = DiskLimits(settings.disk_pressure_percent, settings.cache_max_bytes) if settings.evict_from_disk else None
    store = WeightsStore(
        LocalCache(settings.local_cache),
        sources,
        cluster if settings.cluster_cache_write else None,
        StorePorts(limits, fetched=metrics.on_fetched, evicted=metrics.on_evicted),
    )
    store.clean()
    return store


def _cluster_cache(settings: Settings) -> ClusterCache | None:
    if not settings.cluster_cache:
        return None
    return open_cluster_cache(settings.cluster_cache, create=settings.cluster_cache_write)


def _ports(kind: str, settings: Settings, metrics: Metrics, weights: WeightsStore) -> EnginePorts:
    def read() -> Reading | None:
        used = accelerator.read_memory(kind)
        return Reading(*used) if used else read_memory(settings.memory_limit_bytes)

    def release() -> None:
        accelerator.empty_caches(kind)
        return_to_system()

    return EnginePorts(
        clock=time.monotonic,
        gpus=accelerator.memory,
        record=metrics.on_batch,
        fetch=lambda spec: fetch(spec, kind, weights.pin),
        memory=MemoryPorts(read, release),
        is_out_of_memory=accelerator.is_out_of_memory,
        self_test=accelerator.self_test,
        on_oom=metrics.on_oom,
        on_idle=metrics.on_idle,
        draw=random.random,
    )


def _run_beside(stack: AsyncExitStack, work: Coroutine[None, None, None], name: str) -> None:
    """A task that ends with the worker."""
    task = asyncio.create_task(work, name=name)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)


async def serve(settings: Settings) -> None:
    """Serve until a signal; see `worker` for what may be raised."""
    async with worker(settings) as running:
        config = uvicorn.Config(
            running.app,
            host=settings.host,
            port=settings.port,
            http=BoundedHttp,
            ws="websockets-sansio",
            lifespan="off",
            access_log=False,
            server_header=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_FOR_REPLIES_S,
        )

        async def drain() -> None:
            running.engine.drain()
            try:
                async with asyncio.timeout(settings.drain_grace_s):
                    await running.engine.idle()
            except TimeoutError:
                pass
            await asyncio.sleep(settings.drain_linger_s)

        async def warm() -> None:
            await running.engine.warm()
            gc.freeze()  # what is imported stays: no collection needs to walk through it again
            running.engine.preload()

        await WorkerServer(config, warm, drain).serve()
