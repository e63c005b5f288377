"""What happens to the router's memory and metrics: long bodies both ways, and names nobody configured."""

import urllib.request
from pathlib import Path

from fake_worker import MODEL
from sie_protocol.headers import METRICS, POOL, operation_path
from wrk import memory_mb, wrk

LONG_BYTES = 4 << 20
LONG_REQUESTS, LINES = 400, 5  # for each line of the table; allocators need a few hundred to settle
REQUESTS = 100_000
NAMES = 10_000
LONG_SCRIPT = f"""
wrk.method = "POST"
wrk.path = "{operation_path("encode", MODEL)}"
wrk.body = string.rep("x", {LONG_BYTES})
"""
# Every other request also names a pool; pools that do not exist are refused, models go to the worker.
NAMES_SCRIPT = f"""
function request()
  local headers = {{}}
  if math.random(2) == 1 then headers["{POOL}"] = "pool-" .. math.random({NAMES}) end
  return wrk.format("POST", "{operation_path("encode", "org/model-")}" .. math.random({NAMES}), headers, "{{}}")
end
"""


def measure_memory(folder: Path, long_port: int, long_pid: int, names_port: int, names_pid: int) -> None:
    """Print what two routers hold after more and more requests."""
    long, names = folder / "long.lua", folder / "names.lua"
    long.write_text(LONG_SCRIPT)
    names.write_text(NAMES_SCRIPT)
    print("\nBodies of 4 MiB in and out, 8 connections:")
    total = 0
    for line in range(1, LINES + 1):
        while total < line * LONG_REQUESTS:
            total += wrk(long_port, long, 8, 2).count
        print(f"{total:8} requests, {memory_mb(long_pid):6.1f} MB resident", flush=True)
    print(f"\n{NAMES:,} names of models and of pools:")
    wrk(names_port, names, 32, 5)  # until caches and arenas have their size
    count, before, series = 0, memory_mb(names_pid), series_of(names_port)
    while count < REQUESTS:
        count += wrk(names_port, names, 32, 5).count
    grown = memory_mb(names_pid) - before
    print(f"{count} requests: {grown:+.2f} MB, {grown / count * REQUESTS:+.2f} MB for each {REQUESTS:,}")
    print(f"series in /metrics: {series} before, {series_of(names_port)} after")


def series_of(port: int) -> int:
    """How many series a router exports."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{METRICS}") as answer:
        return sum(not line.startswith(b"#") for line in answer.read().splitlines())
