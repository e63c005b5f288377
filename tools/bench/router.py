"""Measure what a request costs in the router, beside nginx on the same upstream in the same run.

Starts a worker that answers at once (and another that takes its time), nginx and `sie-router`, drives each in turn
with wrk, and divides the CPU time of the measured process (user + system, from /proc/PID/stat) by the requests it
served. Rounds are interleaved, so that a noisy machine is noisy for all. Needs wrk and nginx.

    .venv/bin/python tools/bench/router.py [--rounds 5] [--seconds 4] [--connections 16]
"""

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools
import msgspec
from websockets.asyncio.server import ServerConnection, serve

from sie_protocol.headers import HEALTH, WORKER_STATUS
from sie_protocol.status import HEARTBEAT_S, ModelStatus, WorkerStatus

MODEL = "BAAI/bge-m3"
BODY_BYTES = 1600
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/msgpack\r\ncontent-length: %d\r\n"
    b"x-queue-time: 0.10\r\nx-total-time: 3.00\r\nx-sie-server-version: 0.1.10\r\n\r\n" % BODY_BYTES
) + b"x" * BODY_BYTES
WRK_SCRIPT = f"""
wrk.method = "POST"
wrk.path = "/v1/encode/{MODEL}"
wrk.body = '{{"items":[{{"text":"Hello world this is a medium long sentence for the benchmark"}}]}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/msgpack"
wrk.headers["X-SIE-MACHINE-PROFILE"] = "l4"
wrk.headers["X-SIE-SDK-Version"] = "0.1.10"
"""
NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream worker {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  upstream slow {{ server 127.0.0.1:{slow}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{slow_port};
    location / {{ proxy_pass http://slow; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Upstream(asyncio.Protocol):
    """A worker's HTTP side: the same answer to everything, after `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(RESPONSE)


async def run_worker(port: int, status_port: int, delay_s: float) -> None:
    """Serve HTTP on one port and the status stream on the same one, by peeking at the first bytes."""
    frame = msgspec.json.encode(
        WorkerStatus(
            ready=True,
            name=f"worker-{port}",
            machine_profile="l4",
            loaded_models=(MODEL,),
            models=(ModelStatus(name=MODEL),),
            gpu_count=1,
        )
    ).decode()

    async def status(stream: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            while True:
                await stream.send(frame)
                await asyncio.sleep(HEARTBEAT_S)

    loop = asyncio.get_running_loop()
    async with serve(status, "127.0.0.1", status_port, compression=None):
        server = await loop.create_server(lambda: Splitter(status_port, delay_s), "127.0.0.1", port)
        await server.serve_forever()


class Splitter(asyncio.Protocol):
    """Decides by its first bytes whether a connection is a status stream or a client of the worker."""

    def __init__(self, status_port: int, delay_s: float) -> None:
        self._status_port = status_port
        self._delay_s = delay_s
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The first bytes came."""
        if self._transport is None:
            return
        if not data.startswith(b"GET " + WORKER_STATUS.encode()):
            upstream = Upstream(self._delay_s)
            upstream.connection_made(self._transport)
            self._transport.set_protocol(upstream)
            upstream.data_received(data)
            return
        relay = Relay(self._transport, data)
        self._transport.set_protocol(relay)
        relay.task = asyncio.create_task(connect(relay.back, self._status_port))


async def connect(back: "Back", port: int) -> None:
    """Open the far side of a relay."""
    await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", port)


class Relay(asyncio.Protocol):
    """Copies bytes between the router and the status server."""

    def __init__(self, front: asyncio.Transport, first: bytes) -> None:
        self.back = Back(front, first)
        self.task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """The router said something."""
        self.back.write(data)

    def eof_received(self) -> None:
        """The router is gone."""
        self.back.close()


class Back(asyncio.Protocol):
    """The far side of a relay."""

    def __init__(self, front: asyncio.Transport, first: bytes) -> None:
        self._front = front
        self._first = first
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The status server is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        """The status server said something."""
        self._front.write(data)

    def write(self, data: bytes) -> None:
        """Pass on what the router said."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Nobody listens any more."""
        if self._transport is not None:
            self._transport.close()


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to measure."""

    name: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One round on one target."""

    cpu_us: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(*command: str) -> Iterator[int]:
    """Run a command for as long as the block lasts; its process id."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(port: int, path: str, wanted: bytes) -> None:
    """Wait until a URL answers with these bytes in its body."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer,
        ):
            if wanted in answer.read():
                return
        time.sleep(0.05)
    sys.exit(f"nothing useful listens on port {port}")


def cpu_seconds(pid: int) -> float:
    """User plus system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def measure(target: Target, script: Path, connections: int, seconds: float) -> Sample:
    """One wrk run."""
    before = cpu_seconds(target.pid)
    report = subprocess.run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script),
            f"http://127.0.0.1:{target.port}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    spent = cpu_seconds(target.pid) - before
    found = re.search(r"(\d+) requests in ([\d.]+)s", report)
    if found is None or "Non-2xx" in report or "Socket errors" in report:
        sys.exit(f"{target.name} did not answer every request with success:\n{report}")
    count = int(found[1])
    return Sample(spent / count * 1e6, count / float(found[2]), _percentile(report, 50), _percentile(report, 99))


def _percentile(report: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", report)
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]] if found else float("nan")


def table(samples: dict[str, list[Sample]]) -> str:
    """Medians over the rounds, and the least CPU time of any round."""
    lines = [f"{'target':<26}{'CPU us/request':>15}{'least':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}"]
    for name, rounds in samples.items():
        cpu = [sample.cpu_us for sample in rounds]
        rate, p50, p99 = (
            statistics.median(getattr(sample, key) for sample in rounds)
            for key in ("requests_per_s", "p50_ms", "p99_ms")
        )
        lines.append(f"{name:<26}{statistics.median(cpu):>15.0f}{min(cpu):>8.0f}{rate:>12.0f}{p50:>9.2f}{p99:>9.2f}")
    return "\n".join(lines)


def run(rounds: int, seconds: float, connections: int) -> dict[str, list[Sample]]:
    """Start everything, measure in turns."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    missing = [name for name, path in (("wrk", shutil.which("wrk")), ("nginx", nginx)) if path is None]
    if missing or nginx is None:
        sys.exit(f"this benchmark needs {' and '.join(missing)}; install: apt-get install {' '.join(missing)}")
    router = str(Path(sys.executable).parent / "sie-router")
    fast, slow, proxy, slow_proxy, port, slow_port, quiet_port = (free_port() for _ in range(7))
    me = (sys.executable, __file__)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        script = folder / "post.lua"
        script.write_text(WRK_SCRIPT)
        (folder / "nginx.conf").write_text(
            NGINX.format(folder=folder, upstream=fast, port=proxy, slow=slow, slow_port=slow_proxy)
        )
        for upstream, delay in ((fast, "0"), (slow, "0.03")):
            stack.enter_context(running(*me, "--worker", f"{upstream}:{free_port()}:{delay}"))
        nginx_pid = stack.enter_context(running(nginx, "-e", "/dev/null", "-c", str(folder / "nginx.conf")))
        flags = ("--group", "l4:default", "-h", "127.0.0.1")
        routers = [
            stack.enter_context(running(router, "serve", *flags, "-p", str(at), "-w", f"http://127.0.0.1:{to}", *more))
            for at, to, more in (
                (port, fast, ()),
                (quiet_port, fast, ("--log-level", "warning")),
                (slow_port, slow, ()),
            )
        ]
        for each in (port, quiet_port, slow_port):
            wait_for(each, HEALTH, b'"status":"healthy"')
        targets = (
            Target("nginx", proxy, nginx_pid),
            Target("sie-router", port, routers[0]),
            Target("sie-router, no audit log", quiet_port, routers[1]),
            Target("nginx, 30 ms worker", slow_proxy, nginx_pid),
            Target("sie-router, 30 ms worker", slow_port, routers[2]),
        )
        samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
        for number in range(rounds + 1):
            for target in targets:
                sample = measure(target, script, connections, seconds if number else 1)
                if number:  # the first round warms up
                    samples[target.name].append(sample)
        return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        port, status_port, delay_s = arguments.worker.split(":")
        import uvloop  # noqa: PLC0415 - only the child process needs it

        uvloop.run(run_worker(int(port), int(status_port), float(delay_s)))
        return
    print(table(run(arguments.rounds, arguments.seconds, arguments.connections)))


if __name__ == "__main__":
    main()
