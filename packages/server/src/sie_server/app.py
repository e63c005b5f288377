"""Builds a worker from its settings: who gets what, and who closes it. No logic lives here."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from sie_protocol.hashing import bundle_config_hash
from sie_server.adapters.registry import ADAPTERS
from sie_server.adapters.shared.accelerator import choose, memory
from sie_server.api.metrics import Metrics
from sie_server.api.routes import build_api
from sie_server.api.status_ws import Identity, StatusFeed
from sie_server.api.tasks import TaskContext
from sie_server.catalog_files import read_catalog, select
from sie_server.engine.device import Device
from sie_server.engine.engine import Engine, EngineLimits, EnginePorts
from sie_server.engine.loop import QueueLimits
from sie_server.engine.pipeline import Pipeline
from sie_server.server import GRACE_FOR_REPLIES_S, KEEP_ALIVE_S, WorkerServer
from sie_server.settings import Settings


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
    catalog = read_catalog(settings.models_dir, settings.bundles_dir)
    models = select(catalog, settings.bundle, settings.models)
    metrics = Metrics()
    limits = EngineLimits(
        settings.max_batch_items,
        settings.cpu_batch_tokens,
        settings.max_text_chars,
        QueueLimits(settings.max_queue_items, settings.max_queue_tokens, settings.queue_timeout_s),
    )
    async with AsyncExitStack() as stack:
        pipeline = Pipeline(max(2, settings.cores), time.monotonic)
        stack.push_async_callback(pipeline.close)
        device = Device(await asyncio.to_thread(choose, settings.device), settings.cores)
        stack.push_async_callback(device.close)
        ports = EnginePorts(time.monotonic, memory, metrics.on_batch)
        engine = Engine(models, adapters, device, pipeline, limits, ports)
        stack.push_async_callback(engine.close)
        metrics.watch(engine.statuses)
        identity = Identity(
            settings.name,
            settings.machine_profile,
            settings.pool,
            settings.bundle,
            bundle_config_hash(catalog.models_of(settings.bundle)),
            settings.max_batch_items,
        )
        feed = StatusFeed(identity, engine, settings.max_watchers)
        context = TaskContext(engine, pipeline, metrics, settings.machine_profile, settings.max_body_bytes)
        app: ASGIApp = build_api(context, feed)
        yield Worker(_traced(app, stack) if settings.tracing else app, engine, feed, metrics)


def _traced(app: ASGIApp, stack: AsyncExitStack) -> ASGIApp:
    try:
        from sie_protocol.tracing import Tracing  # noqa: PLC0415 - costs memory and time where nobody wants it
    except ImportError as error:
        raise ValueError(f"tracing needs more packages, install sie-server[otel]: {error}") from error
    tracing = Tracing("sie-server")
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing.around(app)


async def serve(settings: Settings) -> None:
    """Serve until a signal; see `worker` for what may be raised."""
    async with worker(settings) as running:
        config = uvicorn.Config(
            running.app,
            host=settings.host,
            port=settings.port,
            http="httptools",
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

        await WorkerServer(config, warm, drain).serve()
