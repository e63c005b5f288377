import subprocess
import sys
from pathlib import Path

from sie_server.core.memory import Reading
from sie_server.host_memory import read_memory, resident_bytes

GB = 2**30


def machine(root: Path, **files: str) -> Path:
    """A root folder with what a kernel shows; `__` in a name is a slash."""
    texts = {"proc__self__statm": "900 262144 1 1 0 1 0", "proc__meminfo": f"MemTotal: {64 * GB // 1024} kB", **files}
    for name, text in texts.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def group(folder: str, limit: str, usage: int, cache: int) -> dict[str, str]:
    return {
        f"{folder}memory.max": limit,
        f"{folder}memory.current": str(usage),
        f"{folder}memory.stat": f"anon 5\ninactive_file {cache}\n",
    }


def test_without_a_container_this_process_is_measured_against_the_host(tmp_path: Path) -> None:
    root = machine(
        tmp_path, proc__self__cgroup="0::/user.slice\n", **group("sys__fs__cgroup__user.slice__", "max", 9, 0)
    )
    assert read_memory(0, root) == Reading(resident_bytes(root), 64 * GB)


def test_the_limit_of_a_container_counts_and_its_droppable_file_cache_does_not(tmp_path: Path) -> None:
    cgroup = {"proc__self__cgroup": "0::/\n", **group("sys__fs__cgroup__", str(4 * GB), 3 * GB, GB)}
    assert read_memory(0, machine(tmp_path, **cgroup)) == Reading(2 * GB, 4 * GB)


def test_the_tightest_of_the_groups_above_this_process_counts(tmp_path: Path) -> None:
    above = group("sys__fs__cgroup__pod__", str(4 * GB), 3 * GB, 0)
    own = group("sys__fs__cgroup__pod__me__", str(8 * GB), GB, 0)
    root = machine(tmp_path, proc__self__cgroup="0::/pod/me\n", **above, **own)
    assert read_memory(0, root) == Reading(3 * GB, 4 * GB)


def test_control_groups_of_version_1_are_read_even_when_the_path_is_that_of_the_host(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="5:cpu:/\n4:memory:/docker/abc\n0::/\n",
    )
    (root / "sys/fs/cgroup/memory").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(2 * GB))
    (root / "sys/fs/cgroup/memory/memory.usage_in_bytes").write_text(str(GB))
    (root / "sys/fs/cgroup/memory/memory.stat").write_text(f"total_inactive_file {GB // 2}\n")
    assert read_memory(0, root) == Reading(GB // 2, 2 * GB)


def test_an_own_limit_is_for_this_process(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/\n")
    assert read_memory(2 * GB, root) == Reading(resident_bytes(root), 2 * GB)


def test_a_system_that_tells_nothing_has_no_reading(tmp_path: Path) -> None:
    assert read_memory(0, tmp_path) is None


HOLDER = """
import numpy as np
from sie_server.host_memory import resident_bytes, return_to_system

return_to_system()
before = resident_bytes()
held = [np.ones(1024, np.float32) for _ in range(20_000)]  # small pieces, which the C library keeps when freed
grown = resident_bytes() - before
del held
return_to_system()
print(grown, resident_bytes() - before)
"""


def test_a_process_grows_by_what_it_holds_and_shrinks_when_it_is_given_back() -> None:
    # One of its own: between what other tests hold, pieces that are free stay.
    said = subprocess.run([sys.executable, "-c", HOLDER], check=True, capture_output=True, text=True).stdout
    grown, left = map(int, said.split())
    assert grown > 60_000_000
    assert left < 10_000_000
