"""Workers for tests: in this process behind a real HTTP client, or as the real command in a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from sie_cli.ports import Ports
from sie_protocol.arrays import decode_reply
from sie_protocol.headers import JSON
from sie_server.adapters.registry import ADAPTERS
from sie_server.app import Worker, worker
from sie_server.settings import Settings

BOUND_S = 60.0  # only against hanging


def write_catalog(
    folder: Path, models: Mapping[str, Mapping[str, Any]], adapters: Mapping[str, str] = ADAPTERS
) -> Settings:
    """A catalogue of hash models; each value overrides fields of the file, or of its adapter's options."""
    (folder / "models").mkdir(parents=True)
    (folder / "bundles").mkdir()
    for at, (name, fields) in enumerate(models.items()):
        own = {key: value for key, value in fields.items() if key not in {"adapter", "options"}}
        profile = {"adapter": fields.get("adapter", "hash"), "adapter_options": fields.get("options", {})}
        config = {"sie_id": name, "tasks": {"encode": {"dense": {"dim": 8}}}, "profiles": {"default": profile}, **own}
        (folder / "models" / f"{at}.yaml").write_text(json.dumps(config))
    (folder / "bundles" / "default.yaml").write_text(json.dumps({"name": "default", "adapters": sorted(adapters)}))
    return Settings(
        models_dir=folder / "models",
        bundles_dir=folder / "bundles",
        local_cache=folder / "cache",
        device="cpu",
        cores=2,
        name="w-0",
        drain_linger_s=0,
    )


@dataclass(frozen=True, slots=True)
class Served:
    """A worker in this process and a client for it."""

    worker: Worker
    http: httpx.AsyncClient

    async def encode(self, model: str, *texts: str, **params: Any) -> httpx.Response:
        """One JSON encode call, repeated while the model loads."""
        body = {"items": [{"text": text} for text in texts], **({"params": params} if params else {})}
        async with asyncio.timeout(BOUND_S):
            while True:
                reply = await self.http.post(f"/v1/encode/{model}", json=body, headers={"accept": JSON})
                if reply.headers.get("x-sie-error-code") != "MODEL_LOADING":
                    return reply
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served(settings: Settings, adapters: Mapping[str, str] = ADAPTERS, **changes: Any) -> AsyncIterator[Served]:
    """The whole app of a worker, without sockets."""
    async with worker(replace(settings, **changes), adapters) as running:
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
            yield Served(running, http)


@dataclass(frozen=True, slots=True)
class Process:
    """A `sie-server serve` of our own."""

    popen: subprocess.Popen[str]
    port: int
    started_at: float

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client for it."""
        return httpx.Client(base_url=self.url, timeout=BOUND_S)

    def encode(self, http: httpx.Client, model: str, *texts: str) -> dict[str, Any]:
        """One encode call in msgpack, repeated while the model loads."""
        body = {"items": [{"text": text} for text in texts]}
        deadline = time.monotonic() + BOUND_S
        while time.monotonic() < deadline:
            reply = http.post(f"/v1/encode/{model}", json=body)
            if reply.headers.get("x-sie-error-code") != "MODEL_LOADING":
                assert reply.status_code == 200, reply.text
                answer: dict[str, Any] = decode_reply(reply.content)
                return answer
            time.sleep(0.02)
        raise AssertionError("the model did not load in time")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(BOUND_S)


@contextmanager
def process(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """The real command, listening on a free port."""
    ports = Ports()
    port = ports.take()  # and nobody else gets it until it is listened on
    command = [str(Path(sys.executable).with_name("sie-server")), "serve", "--host", "127.0.0.1", "-p", str(port)]
    started_at = time.monotonic()
    popen = subprocess.Popen([*command, *arguments], text=True, env={**os.environ, **(env or {})})  # noqa: TID251 - for a child
    running = Process(popen, port, started_at)
    try:
        _await_listening(running)
        yield running
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait()
        ports.close()


def _await_listening(running: Process) -> None:
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        assert running.popen.poll() is None, "the worker ended at once; its error is above"
        with contextlib.suppress(httpx.TransportError), running.client() as http:
            if http.get("/healthz").status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError("the worker did not listen in time")
