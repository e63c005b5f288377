"""The benchmarks: which rounds they believe, which interpreters they find, and that two of them run on small models."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments import interpreter
from evenness import TOLERANCE, TRIES, Mark, even_rounds

ACCELERATOR = Path(__file__).parents[2] / "tools/bench/accelerator.py"
FAMILIES = ACCELERATOR.with_name("families.py")
SMALLEST = {"width": 64, "layers": 1, "texts": 3, "images": 2, "side-pixels": 224, "rounds": 1}

rates = st.lists(st.floats(50, 150), min_size=2, max_size=5)


@given(st.lists(rates, min_size=12, max_size=12), st.integers(1, 4))
def test_rounds_on_an_uneven_host_do_not_count_while_there_are_even_ones(hosts: list[list[float]], wanted: int) -> None:
    spreads = [max(host) / min(host) - 1 for host in hosts[: wanted * TRIES]]
    of_round: Iterator[tuple[int, list[float]]] = iter(enumerate(hosts))
    now: list[float] = []

    def measure(mark: Mark) -> int:
        number, host = next(of_round)
        now[:] = host
        assert [mark() for _ in host] == host
        return number

    done = even_rounds(wanted, lambda: now.pop(0), measure)

    found = [each.found for each in done.kept]
    tried = len(found) + done.discarded
    even = [at for at, spread in enumerate(spreads[:tried]) if spread <= TOLERANCE]
    assert len(found) == wanted
    assert done.even == (len(even) >= wanted)
    assert done.even == ("UNEVEN" not in done.verdict())
    assert tried == (even[wanted - 1] + 1 if done.even else wanted * TRIES)
    assert sorted(spreads[at] for at in found) == sorted(spreads[:tried])[:wanted]


def command(path: Path, script: str) -> Path:
    """An executable that does this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_python_that_refuses_to_run_or_is_another_one_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command(tmp_path / "bin/python3.99", "exit 127")
    command(home / ".pyenv/versions/3.99.2/bin/python", "echo 3.98")
    wanted = command(home / ".local/share/uv/python/cpython-3.99.1-linux/bin/python", "echo 3.99")

    assert interpreter("3.99", {"PATH": str(tmp_path / "bin")}, home) == wanted
    assert interpreter("3.97", {"PATH": str(tmp_path / "bin")}, home) is None


def test_the_python_on_the_path_comes_first(tmp_path: Path) -> None:
    wanted = command(tmp_path / "bin/python3.99", "echo 3.99")
    command(tmp_path / "pyenv/versions/3.99.2/bin/python", "echo 3.99")

    both = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv")}
    assert interpreter("3.99", both, tmp_path) == wanted
    assert interpreter("3.99", {**both, "PATH": ""}, tmp_path) == tmp_path / "pyenv/versions/3.99.2/bin/python"


def test_this_python_is_one_that_can_make_environments() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert interpreter(version, {"PATH": str(Path(sys.executable).parent)}, Path("/nowhere")) is not None


@pytest.mark.timeout(300)
def test_the_accelerator_benchmark_runs_on_a_cpu() -> None:
    options = ["--device", "cpu", "--precision", "float32", "--models", "MiniLM", "--texts", "8", "--rounds", "2"]
    ran = subprocess.run([sys.executable, ACCELERATOR, *options], capture_output=True, text=True, check=True)
    pattern = r"MiniLM +(\d+) tokens +([\d,]+) tokens/s .* smallest cosine to float32 ([\d.]+)\n"
    line = re.search(pattern, ran.stdout)
    assert line is not None, ran.stdout
    tokens, per_second, cosine = line.groups()
    assert int(tokens) > 0
    assert int(per_second.replace(",", "")) > 0
    assert float(cosine) == pytest.approx(1, abs=1e-5)


@pytest.mark.timeout(600)
def test_families_are_measured_and_say_the_same_as_their_libraries() -> None:
    names = ["bert", "qwen3-reranker", "nli", "clip"]  # of each kind of work one
    options = [part for name, value in SMALLEST.items() for part in (f"--{name}", str(value))]
    ran = subprocess.run([sys.executable, FAMILIES, *names, *options], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()[1:]
    found = [re.match(r"(\S.*?\S) +([\d.]+) \(.* ([\d.e+-]+) of (\d+)$", line) for line in lines]
    assert all(found), ran.stdout
    parts = [each.groups() for each in found if each]
    assert [name for name, *_ in parts] == names
    assert all(float(ratio) > 0 and int(numbers) > 0 for _, ratio, _, numbers in parts), ran.stdout
    assert all(float(difference) < 1e-5 for _, _, difference, _ in parts), ran.stdout
