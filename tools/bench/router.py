"""Measure what a request costs in the router, beside nginx, HAProxy and vllm-router on the same worker in one run.

Each proxy stands in front of a worker that answers at once; wrk asks on 32 connections, 1 KB in, 1.5 KB out. The CPU
time of the proxy (user + system, all threads) is divided by the requests it served. Rounds are interleaved, so that a
noisy machine is noisy for all, and ratios are taken within a round.

Then every proxy gets half of the requests a second that this router took just now, as an open loop (`open_loop.py`):
who replaces one by another has the same load, whatever each could take. Last, what happens to the router's memory.
Needs wrk, nginx and haproxy; installs vllm-router under the user's cache folder.

    .venv/bin/python tools/bench/router.py [--rounds 5] [--seconds 3] [--connections 32] [--only NAME] [--no-memory]
"""

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fake_worker import MODEL
from open_loop import open_loop
from proxies import VLLM_ROUTER, Proxy, haproxy, nginx, sie_router, version, vllm_router
from router_memory import measure_memory
from servers import free_port, serving
from sie_protocol.headers import EMBEDDINGS, operation_path
from wrk import cpu_seconds, wrk

SENT_BYTES, ANSWER_BYTES = 1_000, 1_500
OURS = "sie-router"
ENCODE = operation_path("encode", MODEL)
PROXIES = (
    Proxy(OURS, sie_router(), ENCODE),
    Proxy("sie-router, no audit log", sie_router("--log-level", "warning"), ENCODE),
    Proxy("nginx", nginx, ENCODE),
    Proxy("haproxy", haproxy, ENCODE),
    Proxy(VLLM_ROUTER, vllm_router, EMBEDDINGS),
)
BODY = json.dumps({"model": MODEL, "input": "", "items": [{"text": "w" * (SENT_BYTES - 70)}]})
SCRIPT = """
wrk.method = "POST"
wrk.path = "{path}"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json"
wrk.headers["X-SIE-MACHINE-PROFILE"] = "l4"
wrk.headers["X-SIE-SDK-Version"] = "0.1.10"
"""
REQUEST = (
    "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
    "X-SIE-MACHINE-PROFILE: l4\r\nX-SIE-SDK-Version: 0.1.10\r\nContent-Length: {length}\r\n\r\n{body}"
)
OPEN_S = 2.0
KEPT_UP = 0.97  # of the requests that were due; with fewer answers a p50 says nothing


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy that runs."""

    name: str
    path: str
    port: int
    pid: int
    script: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One round on one target."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float


def write_script(file: Path, path: str) -> Path:
    """A script for wrk."""
    file.write_text(SCRIPT.format(path=path, body=BODY))
    return file


def measure(target: Target, connections: int, seconds: int) -> Sample:
    """One wrk run; every answer must be a success."""
    before = cpu_seconds(target.pid)
    report = wrk(target.port, target.script, connections, seconds)
    spent = cpu_seconds(target.pid) - before
    if report.failed:
        sys.exit(f"{target.name} failed on {report.failed} of {report.count} requests")
    return Sample(spent / report.count * 1e6, report.per_second, report.p50_ms, report.p99_ms)


def table(samples: dict[str, list[Sample]]) -> str:
    """Medians over the rounds, the least CPU time of any round, and the median of the rounds' ratios."""
    head = ("CPU us/request", "least", "requests/s", "p50 ms", "p99 ms", "ours/this")
    lines = [f"{'proxy':<26}" + "".join(f"{each:>15}" for each in head)]
    for name, rounds in samples.items():
        cpu = [sample.cpu_us for sample in rounds]
        rate, p50, p99 = (
            statistics.median(getattr(sample, key) for sample in rounds) for key in ("per_second", "p50_ms", "p99_ms")
        )
        ratio = statistics.median(ours.cpu_us / this for ours, this in zip(samples[OURS], cpu, strict=True))
        values = (f"{statistics.median(cpu):.0f}", f"{min(cpu):.0f}", f"{rate:.0f}", f"{p50:.2f}", f"{p99:.2f}")
        lines.append(f"{name:<26}" + "".join(f"{each:>15}" for each in (*values, f"{ratio:.2f}")))
    return "\n".join(lines)


@contextlib.contextmanager
def worker(size_bytes: int) -> Iterator[int]:
    """A worker whose answers have this size; its port."""
    port = free_port()
    file = Path(__file__).with_name("fake_worker.py")
    command = [sys.executable, str(file), str(port), str(free_port()), "0", str(size_bytes)]
    with serving(command, port, ENCODE, {}):
        yield port


@contextlib.contextmanager
def running(proxy: Proxy, folder: Path, upstream: int) -> Iterator[Target]:
    """A proxy that passes requests on."""
    port = free_port()
    command = proxy.command(folder, port, upstream)
    with serving(command, port, proxy.path, json.loads(BODY)) as started:
        script = write_script(folder / f"{port}.lua", proxy.path)
        yield Target(proxy.name, proxy.path, port, started.pid, script)


def rounds_of(targets: list[Target], rounds: int, seconds: int, connections: int) -> dict[str, list[Sample]]:
    """Measure in turns; the first round warms up."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    for number in range(rounds + 1):
        for target in targets:
            sample = measure(target, connections, seconds if number else 1)
            if number:
                samples[target.name].append(sample)
    return samples


def added_ms(targets: list[Target], upstream: int, per_second: float, connections: int, rounds: int) -> str:
    """How much longer a request takes than without each proxy, and what share of a core that costs."""
    added: dict[str, list[float]] = {target.name: [] for target in targets}
    busy: dict[str, list[float]] = {target.name: [] for target in targets}
    late: set[str] = set()
    for _ in range(rounds):
        for target in targets:
            request = REQUEST.format(path=target.path, length=len(BODY), body=BODY).encode()
            direct = open_loop(upstream, request, connections, per_second, OPEN_S)
            before = cpu_seconds(target.pid)
            proxied = open_loop(target.port, request, connections, per_second, OPEN_S)
            busy[target.name].append((cpu_seconds(target.pid) - before) / OPEN_S)
            added[target.name].append(proxied.p50_ms - direct.p50_ms)
            if proxied.per_second < KEPT_UP * per_second:
                late.add(target.name)
    lines = [f"At {per_second:.0f} requests/s, half of what {OURS} took, open loop; median of the rounds (range):"]
    for name, values in added.items():
        said = f"{name:<26}{statistics.median(values):>8.2f} ms added to p50 ({min(values):.2f} to {max(values):.2f})"
        said += f", {statistics.median(busy[name]):.0%} of a core"
        lines.append(said + (", did not keep up in every round" if name in late else ""))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", default="", help="measure the proxies whose name holds this, and sie-router")
    parser.add_argument("--no-memory", action="store_true", help="leave out what happens to memory (a minute or two)")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the proxies end with us
    chosen = [each for each in PROXIES if each.name == OURS or asked.only in each.name]
    print(f"{version('nginx')}; {version('haproxy')}; {asked.connections} connections, {len(BODY)} bytes in")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(worker(ANSWER_BYTES))
        targets = [stack.enter_context(running(each, folder, upstream)) for each in chosen]
        samples = rounds_of(targets, asked.rounds, asked.seconds, asked.connections)
        print(table(samples), flush=True)
        most = statistics.median(sample.per_second for sample in samples[OURS])
        print(added_ms(targets, upstream, most / 2, asked.connections, asked.rounds), flush=True)
    print("\nChoosing a worker:", flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name("decide.py")], check=True)
    if not asked.no_memory:
        with tempfile.TemporaryDirectory() as name, worker(4 << 20) as long, worker(ANSWER_BYTES) as short:
            folder = Path(name)
            with running(PROXIES[1], folder, long) as bodies, running(PROXIES[1], folder, short) as names:
                measure_memory(folder, bodies.port, bodies.pid, names.port, names.pid)


if __name__ == "__main__":
    main()
