"""Runs `sie up` as a user does and reads what it prints."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from cluster_log import BOUND_S
from sie_cli.settings import load

SIE = str(Path(sys.executable).with_name("sie"))


def environment(cluster_file: Path) -> dict[str, str]:
    """Ours, but what a killed `sie up` leaves in its temporary folder ends with the test's."""
    return {**load().inherited, "TMPDIR": str(cluster_file.parent)}


class RunningUp:
    """One `sie up`; `lines` is everything it printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line that matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip())
                if match := re.search(pattern, self.lines[-1]):
                    return match
        raise AssertionError(f"it ended before a line like '{pattern}':\n" + "\n".join(self.lines))

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(BOUND_S):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode

    @property
    def port(self) -> int:
        """Port of the first router."""
        return int(self.url.rpartition(":")[2])


@contextlib.asynccontextmanager
async def sie_up(cluster_file: Path, **environ: str) -> AsyncIterator[RunningUp]:
    """`sie up` on a free port, ready to serve; killed at the end if it still runs. `environ`: beside our own."""
    env = {**environment(cluster_file), **environ}
    process = await asyncio.create_subprocess_exec(
        SIE, "up", "-f", str(cluster_file), "--port", "0", stdout=asyncio.subprocess.PIPE, env=env
    )
    running = RunningUp(process)
    try:
        running.url = (await running.line(r"SIE answers on (http://\S+)"))[1]
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
