"""Runs the application: uvloop, httptools, and an end that loses no request."""

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, cast

import uvicorn
from starlette.types import ASGIApp

from sie_protocol.codec import PAUSE_S
from sie_protocol.headers import SERVER_VERSION
from sie_protocol.malloc import M_MMAP_THRESHOLD, mallopt
from sie_protocol.versions import VERSION
from sie_router.app import RouterApp
from sie_router.data.fast_path import FastPath
from sie_router.edge.audit import AuditLog, no_audit
from sie_router.edge.protocol import Protocol
from sie_router.settings import Settings

KEEP_ALIVE_S = 75  # longer than the idle timeout of common load balancers, so that they close first
AUDIT_DELAY_S = 0.005  # each turn of the loop that has to write takes a twentieth of a request
LONG_BYTES = 128 << 10  # in memory, what is longer gets a mapping of its own; where the C library begins
GC_THRESHOLD = 10_000  # objects; about a hundred requests leave that many behind

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """First signal: unready, finish what was begun, exit with 0. Second signal: exit now."""

    def __init__(self, config: uvicorn.Config, router: RouterApp, audit: AuditLog, drain_s: float) -> None:
        super().__init__(config)
        self._router = router
        self._audit = audit
        self._drain_s = drain_s

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal; when this returns, every request has its record."""
        keep_bodies_apart()
        try:
            super().run(sockets)
        finally:
            self._audit.flush()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for as long as the server runs; a graceful end is no death by signal."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self._stop)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set everything that lives as long as the process aside for the garbage collector.

        Walking the framework's 10^5 objects again and again took 8 % of the CPU and stopped all requests for 40 ms.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 100)

    def _stop(self) -> None:
        if self._router.is_draining:
            self.force_exit = True
            self.should_exit = True
            return
        logger.info("draining: new connections for another %g s, then finishing %s", self._drain_s, "what was begun")
        self._router.drain()
        # Clients keep connections: who is not told to leave asks again just when they are closed, and gets no answer.
        self.config.encoded_headers = [*self.config.encoded_headers, (b"connection", b"close")]
        asyncio.get_running_loop().call_later(self._drain_s, setattr, self, "should_exit", True)


def keep_bodies_apart() -> None:
    """Have the memory of a long body go back to the system with it.

    Told nothing, the C library puts blocks of up to 32 MB among the small ones once one of them was freed. Small
    ones that outlive them pin the holes: with bodies of 4 MiB a router grew by half over 10,000 requests.
    """
    mallopt(M_MMAP_THRESHOLD, LONG_BYTES)


def make_server(settings: Settings) -> Server:
    """A server ready to run.

    Raises:
        ValueError: tracing is asked for and its packages are not installed.
    """
    audited = logging.getLogger().isEnabledFor(logging.INFO)
    log = AuditLog(sys.stderr.buffer, time.time, settings.json_logs, _soon)
    router = RouterApp(settings, log.write if audited else no_audit)
    shutdown_s = math.ceil(settings.request_timeout_s) + 1
    config = server_config(
        router.asgi, router.fast_path, host=settings.host, port=settings.port, loop="uvloop", shutdown_s=shutdown_s
    )
    return Server(config, router, log, settings.drain_s)


def _soon(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(AUDIT_DELAY_S, call)


def server_config(
    app: ASGIApp,
    fast_path: FastPath | None,
    *,
    host: str,
    port: int,
    loop: Literal["uvloop", "none"],
    shutdown_s: int,
    pause_s: float = PAUSE_S,
) -> uvicorn.Config:
    """How a router is served; every answer carries its version. `none` is for a caller with a loop of its own.

    `pause_s`: see `Protocol`.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop=loop,
        # All that uvicorn does is to call it.
        http=cast("type[asyncio.Protocol]", partial(Protocol, fast_path=fast_path, pause_s=pause_s)),
        headers=[(SERVER_VERSION, VERSION)],
        ws_max_size=1 << 16,
        lifespan="on",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_s,
    )
