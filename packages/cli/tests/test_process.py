import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stand_ins
from cluster_log import ClusterLog, is_alive
from sie_cli.events import Phase
from sie_cli.ports import Ports
from sie_cli.process import LAST_BACKOFF_S, Place, Program, Slot, backoff_s
from sie_cli.settings import load


@contextlib.asynccontextmanager
async def a_slot(
    log: ClusterLog, folder: Path, *, grace_s: float = 10.0, slow_after_s: float = 60.0, **env: str
) -> AsyncIterator[Slot]:
    ports = Ports()
    port = ports.take()
    argv = (sys.executable, stand_ins.__file__, "server", "serve", "--host", "127.0.0.1", "--port", str(port))
    identity = {"POD_NAME": "a-0", "SIE_MACHINE_PROFILE": "a", "SIE_BUNDLE": "b"}
    program = Program(argv, {**load().inherited, **identity, **env})
    async with httpx.AsyncClient() as http:
        place = Place("a-0", f"http://127.0.0.1:{port}", folder / "a-0.log")
        slot = Slot(place, lambda: program, log.add, http, grace_s=grace_s, slow_after_s=slow_after_s)
        task = asyncio.create_task(slot.run())
        try:
            yield slot
        finally:
            task.cancel()
            await asyncio.wait((task,))
            ports.close()


async def test_a_process_comes_up_in_order_and_ends_with_grace(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path) as slot:
        slot.want(True)
        await log.phase("a-0", Phase.READY)
        slot.want(False)
        stopped = await log.phase("a-0", Phase.STOPPED)
        await slot.stopped()
        assert stopped.status == -signal.SIGTERM
        assert not slot.is_ready
    assert [phase for _, phase in log.of(*Phase)] == [
        Phase.STARTED,
        Phase.LISTENING,
        Phase.READY,
        Phase.STOPPING,
        Phase.STOPPED,
    ]


async def test_a_process_that_listens_and_is_not_ready_is_told_of_once(tmp_path: Path) -> None:
    log, ready = ClusterLog(), tmp_path / "ready"
    async with a_slot(log, tmp_path, slow_after_s=0.2, SIE_TEST_UNREADY=str(ready)) as slot:
        slot.want(True)
        await log.phase("a-0", Phase.SLOW)
        ready.touch()
        await log.phase("a-0", Phase.READY)
    told = [phase for _, phase in log.of(Phase.LISTENING, Phase.SLOW, Phase.READY)]
    assert told == [Phase.LISTENING, Phase.SLOW, Phase.READY]


async def test_a_process_that_ignores_the_request_to_end_is_killed_after_its_grace(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path, grace_s=0.05, SIE_TEST_STUBBORN="a-0") as slot:
        slot.want(True)
        await log.phase("a-0", Phase.READY)
        slot.want(False)
        stopped = await log.phase("a-0", Phase.STOPPED)
        assert stopped.status == -signal.SIGKILL


async def test_a_process_that_keeps_crashing_is_started_ever_more_slowly_until_it_is_unwanted(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path, SIE_TEST_CRASH="a-0") as slot:
        slot.want(True)
        first = await log.phase("a-0", Phase.CRASHED)
        second = await log.phase("a-0", Phase.CRASHED, after=log.events.index(first) + 1)
        assert (first.status, first.retry_in_s, second.retry_in_s) == (3, backoff_s(1), backoff_s(2))
        assert second.at - first.at >= backoff_s(1)
        slot.want(False)
        await slot.stopped()


async def test_a_process_that_is_wanted_again_while_it_ends_starts_again(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path) as slot:
        slot.want(True)
        ready = await log.phase("a-0", Phase.READY)
        slot.want(False)
        stopping = await log.phase("a-0", Phase.STOPPING)
        slot.want(True)
        again = await log.phase("a-0", Phase.READY, after=log.events.index(stopping))
        assert again.pid != ready.pid


async def test_ctrl_c_in_the_terminal_does_not_reach_the_process(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path) as slot:
        slot.want(True)
        ready = await log.phase("a-0", Phase.READY)
        assert os.getpgid(ready.pid) != os.getpgid(0)


async def test_a_cancelled_slot_leaves_no_process(tmp_path: Path) -> None:
    log = ClusterLog()
    async with a_slot(log, tmp_path, SIE_TEST_STUBBORN="a-0") as slot:
        slot.want(True)
        ready = await log.phase("a-0", Phase.READY)
    assert not is_alive(ready.pid)


@given(st.integers(1, 60))
def test_the_pause_between_starts_grows_to_a_limit(crashes: int) -> None:
    assert backoff_s(crashes) <= backoff_s(crashes + 1) <= LAST_BACKOFF_S


def test_ports_taken_together_differ() -> None:
    ports = Ports()
    try:
        taken = [ports.take() for _ in range(50)]
        assert len(set(taken)) == 50
    finally:
        ports.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a bound socket keep a port for another process")
def test_a_taken_port_is_not_given_to_anyone_else() -> None:
    ports, others = Ports(), Ports()
    try:
        taken = {ports.take() for _ in range(20)}
        assert not taken & {others.take() for _ in range(500)}
    finally:
        ports.close()
        others.close()
