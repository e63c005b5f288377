"""A router's memory after long bodies, as far as the C library decides on it."""

import subprocess
import sys

import pytest

# Eight bodies of 4 MiB, in the pieces in which they come, and small things among them that stay.
BODIES = """
from pathlib import Path
from sie_router.serve import keep_bodies_apart

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

{first}
before, stay = resident_mb(), []
for _ in range(3):
    bodies = []
    for _ in range(8):
        parts = []
        for _ in range(16):
            parts.append(b"x" * (256 << 10))
            stay.append(b"x" * 20_000)
        bodies.append(b"".join(parts))
        bodies.append(parts)
    del bodies, parts
print(resident_mb() - before)
"""


def grown_mb(first: str) -> float:
    command = [sys.executable, "-c", BODIES.format(first=first)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_long_bodies_leave_no_holes_in_the_heap() -> None:
    lifted = "large = bytes(16 << 20); del large"  # as any long body does, once it is freed
    told, not_told = grown_mb(f"keep_bodies_apart(); {lifted}"), grown_mb(lifted)
    assert told < 10  # most of it is what stays
    assert not_told > 50
