"""Measure each family of models beside the library that its authors use, with the same seeded weights, in one run.

A family's checkpoint is small and random, its tokenizer and inputs are real. The engine gets one request with all
inputs, offline; the library gets the same in batches, sorted by length where it does that by itself. Each side has a
process of its own; they take turns, ratios are taken within a turn, above 1 where the worker is faster. CPU seconds are
those of all threads of a process, none of which spins: they depend less on who else uses the machine.

    .venv/bin/python tools/bench/families.py [NAME ...] [--rounds 3] [--texts 24] [--images 4] [--layers 4]
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

MODEL: Final = "bench/model"
SIDES: Final = ("worker", "library")
# Threads that wait without spinning: on a machine that others use, what they spin away is more than the work.
QUIET: Final = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over all inputs took."""

    seconds: float
    cpu_s: float


class Side:
    """One of the two processes: it opens one family after the other, so that it imports the libraries once."""

    def __init__(self, side: str, size: Sequence[int]) -> None:
        command = [sys.executable, __file__, "--side", side, *_flags(size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=QUIET)

    def ask(self, what: str) -> Any:
        """`open NAME FOLDER` first; `answers` for all of them, `pass` for what a pass took; then `close`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - opened above
        assert stdout is not None  # noqa: S101 - opened above
        stdin.write(what + "\n")
        stdin.flush()
        return _told(stdout)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def _told(stream: IO[str]) -> Any:
    line = stream.readline()
    if not line:
        raise SystemExit("a measuring process died; its error is above")
    return json.loads(line)


def _flags(size: Sequence[int]) -> list[str]:
    names = ("width", "layers", "texts", "images", "side-pixels")
    return [part for name, value in zip(names, size, strict=True) for part in (f"--{name}", str(value))]


def measure(name: str, sides: Sequence[Side], rounds: int, size: Sequence[int]) -> str:
    """One family: a line of the table."""
    from family_kit import Size, quiet  # noqa: PLC0415 - it imports torch, which asking for help need not wait for
    from family_list import FAMILIES  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with quiet():
            FAMILIES[name].write(folder / "model", Size(*size))
        for side in sides:
            side.ask(f"open {folder} {name}")
        answers = [side.ask("answers") for side in sides]
        passes = [[Pass(**side.ask("pass")) for side in sides] for _ in range(rounds)]
        for side in sides:
            side.ask("close")
    wall = [theirs.seconds / ours.seconds for ours, theirs in passes]
    cpu = [theirs.cpu_s / ours.cpu_s for ours, theirs in passes]
    took = [
        " / ".join(
            f"{statistics.median(1000 * each / len(answers[0]) for each in side):.1f}" for side in zip(*of, strict=True)
        )
        for of in (
            [[each.cpu_s for each in both] for both in passes],
            [[each.seconds for each in both] for both in passes],
        )
    ]
    return f"{name:<20}{_spread(cpu):<24}{_spread(wall):<24}{took[0]:<16}{took[1]:<16}{difference(*answers)}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def difference(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> str:
    """The largest between two numbers that should be one, and what only one side found."""
    worst, only, shared = 0.0, 0, 0
    if len(ours) != len(theirs):
        return f"{len(ours)} answers beside {len(theirs)}"
    for mine, other in zip(ours, theirs, strict=True):
        both = mine.keys() & other.keys()
        only += len(mine.keys() ^ other.keys())
        shared += len(both)
        worst = max([worst, *(abs(mine[key] - other[key]) for key in both)])
    return f"{worst:.1e} of {shared}" + (f", {only} on one side only" if only else "")


def serve(side: str, size: Sequence[int]) -> None:
    """Be one of the processes."""
    from family_kit import Size, quiet  # noqa: PLC0415 - only the processes need torch
    from family_list import FAMILIES  # noqa: PLC0415

    if side == "worker":
        from sie_server.host_memory import configure_malloc  # noqa: PLC0415
        from sie_server.settings import use_huge_pages  # noqa: PLC0415

        use_huge_pages()  # as the command does, and so the next
        configure_malloc()
    with quiet():
        while line := sys.stdin.readline().strip():
            _, folder, name = line.split(" ", 2)
            family, whole = FAMILIES[name], Size(*size)
            work = family.work(whole)
            if side == "worker":
                asyncio.run(_worker(family, whole, work, Path(folder)))
            else:
                _library(family.reference(Path(folder, "model"), work))
            gc.collect()
            _tell("closed")


def _library(reference: Any) -> None:
    import torch  # noqa: PLC0415 - only the processes need it

    _tell("open")
    with torch.inference_mode():
        while (line := sys.stdin.readline().strip()) != "close":
            _tell([reference.told(each) for each in reference.once()] if line == "answers" else _timed(reference.once))


def _timed(once: Callable[[], Any]) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    once()
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - used}


def _tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def _worker(family: Any, size: Any, work: Any, folder: Path) -> None:
    from family_engine import asked, settings_for  # noqa: PLC0415
    from sie_protocol.errors import Problem  # noqa: PLC0415
    from sie_server.app import worker  # noqa: PLC0415

    async with worker(settings_for(family, size, folder, MODEL)) as running:
        once = asked(running.engine, MODEL, work)
        while True:
            try:
                await once()
            except Problem as problem:
                if problem.retry_after_s is None:
                    raise
                await asyncio.sleep(min(0.1, problem.retry_after_s))
            else:
                break
        _tell("open")
        while (line := (await asyncio.to_thread(sys.stdin.readline)).strip()) != "close":
            _tell(await once() if line == "answers" else await _pass(once))


async def _pass(once: Callable[..., Awaitable[Any]]) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    await once(tell=False)
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - used}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="by name; all without one")
    parser.add_argument("--rounds", type=int, default=3)
    for name, default in (("width", 384), ("layers", 4), ("texts", 24), ("images", 4), ("side-pixels", 448)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = (given.width, given.layers, given.texts, given.images, given.side_pixels)
    if given.side:
        serve(given.side, size)
        return
    from family_list import FAMILIES  # noqa: PLC0415 - it imports torch, which asking for help need not wait for

    unknown = [name for name in given.families if name not in FAMILIES]
    if unknown:
        parser.error(f"there is no family '{unknown[0]}'; there are {', '.join(FAMILIES)}")
    sides = [Side(side, size) for side in SIDES]
    heads = f"{'library / worker, CPU':<24}{'wall':<24}{'CPU ms an input':<16}{'ms an input':<16}largest difference"
    print(f"{'family':<20}{heads}", flush=True)
    for name in given.families or FAMILIES:
        print(measure(name, sides, given.rounds, size), flush=True)
    for side in sides:
        side.close()


if __name__ == "__main__":
    main()
