"""Collects a cluster's events and waits for the one a test is about; finds out which processes are left."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from sie_cli.events import Event, Phase, ProcessEvent

BOUND_S = 90.0  # for anything a test waits for; a busy machine included


class ClusterLog:
    """Pass `add` as the cluster's emit."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, wanted: Callable[[Event], bool], *, after: int = 0) -> Event:
        """The first event from position `after` on that is wanted."""
        async with asyncio.timeout(BOUND_S):
            while True:
                found = next((event for event in self.events[after:] if wanted(event)), None)
                if found is not None:
                    return found
                self._news.clear()
                await self._news.wait()

    async def phase(self, name: str, phase: Phase, *, after: int = 0) -> ProcessEvent:
        """The first such event of one process."""
        event = await self.until(
            lambda event: isinstance(event, ProcessEvent) and (event.name, event.phase) == (name, phase), after=after
        )
        assert isinstance(event, ProcessEvent)
        return event

    @property
    def pids(self) -> set[int]:
        """Every process that was ever started."""
        return {event.pid for event in self.events if isinstance(event, ProcessEvent)}

    def of(self, *phases: Phase) -> list[tuple[str, Phase]]:
        """Names and phases of the process events, in order."""
        found = (event for event in self.events if isinstance(event, ProcessEvent) and event.phase in phases)
        return [(event.name, event.phase) for event in found]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def children_of(pid: int) -> set[int]:
    """Running direct children of a process."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] not in {"Z", "X"}:
                found.add(int(entry.name))
    return found


def is_free(port: int) -> bool:
    """Whether one could listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def eventually(claim: Callable[[], bool]) -> None:
    """Wait until something outside this process is so."""
    async with asyncio.timeout(BOUND_S):
        while not claim():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.02)


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that this test started."""
    os.kill(pid, number)
