"""Runs wrk, and reads what it and the kernel say."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from proxies import program

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `failed` counts answers other than 2xx and 3xx."""

    count: int
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def wrk(port: int, script: Path, connections: int, seconds: int) -> Report:
    """Ask as fast as the script allows, on so many connections.

    Raises:
        SystemExit: connections broke.
    """
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", said)
    if found is None or "Socket errors" in said:
        raise SystemExit(f"connections to port {port} broke:\n{said}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    return Report(
        int(found[1]),
        float(rate[1]) if rate else 0.0,
        _percentile(said, 50),
        _percentile(said, 99),
        int(failed[1]) if failed else 0,
    )


def cpu_seconds(pid: int) -> float:
    """User plus system time of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def _percentile(said: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", said)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
