"""Starting, scaling, crashing and stopping, with stand-ins for the router and the worker."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import stand_ins
from cluster_log import ClusterLog, eventually, is_alive, is_free, kill
from sie_cli import clusterfile
from sie_cli.cluster import Cluster, ClusterError
from sie_cli.clusterfile import ClusterFile
from sie_cli.events import Phase, ScaleEvent
from sie_cli.ports import PortInUseError
from sie_cli.programs import Executables
from sie_cli.scaler import explain
from sie_cli.settings import Settings, load
from sie_cli.up import run

MakeCluster = Callable[..., Cluster]
STAND_INS = Executables((sys.executable, stand_ins.__file__, "router"), (sys.executable, stand_ins.__file__, "server"))


def a_file(*, maximum: int = 2, routers: int = 1, port: int = 0, scaling: str = "") -> ClusterFile:
    return clusterfile.decode(
        f"""
        router: {{port: {port}, replicas: {routers}}}
        workers: {{pools: {{l4: {{maxReplicas: {maximum}}}}}}}
        autoscaling: {{pollingInterval: 0.05, syncPeriod: 0.05, fallbackReplicas: null, {scaling}}}
        """.encode()
    )


@pytest.fixture
def log() -> ClusterLog:
    return ClusterLog()


@pytest.fixture
def a_cluster(log: ClusterLog, tmp_path: Path) -> MakeCluster:
    def make(file: ClusterFile, env: Mapping[str, str] = MappingProxyType({})) -> Cluster:
        return Cluster(
            file, Settings({**load().inherited, **env}, cores=2, runs=tmp_path, state=tmp_path), STAND_INS, log.add
        )

    return make


async def test_the_lowest_ordinal_starts_first_and_the_highest_leaves_first(
    log: ClusterLog, a_cluster: MakeCluster
) -> None:
    async with a_cluster(a_file(maximum=3)) as cluster:
        cluster.scale("l4", 3)
        for ordinal in range(3):
            await log.phase(f"l4-{ordinal}", Phase.READY)
        cluster.scale("l4", 1)
        for ordinal in (1, 2):
            await log.phase(f"l4-{ordinal}", Phase.STOPPED)
        assert cluster.size("l4") == 1
        started = [name for name, _ in log.of(Phase.STARTED)]
        assert started == ["router-0", "l4-0", "l4-1", "l4-2"]
        assert [name for name, _ in log.of(Phase.STOPPING)] == ["l4-2", "l4-1"]
    assert not any(is_alive(pid) for pid in log.pids)


async def test_a_worker_has_its_pod_name_profile_and_bundle_and_its_port_stays_the_same(
    log: ClusterLog, a_cluster: MakeCluster
) -> None:
    async with a_cluster(a_file(maximum=1)) as cluster:
        cluster.scale("l4", 1)
        first = await log.phase("l4-0", Phase.READY)
        assert first.log.read_text() == "l4-0 of l4/default speaks\n"
        kill(first.pid, signal.SIGKILL)
        crashed = await log.phase("l4-0", Phase.CRASHED)
        assert crashed.status == -signal.SIGKILL
        again = await log.phase("l4-0", Phase.READY, after=log.events.index(crashed))
        assert (again.url, again.pid != first.pid) == (first.url, True)


async def test_a_router_that_cannot_start_is_reported_with_the_end_of_its_log(
    log: ClusterLog, a_cluster: MakeCluster
) -> None:
    with pytest.raises(ClusterError, match="router-0 ended with status 3:\nrouter speaks\nWhole log: ") as caught:
        async with a_cluster(a_file(), {"SIE_TEST_CRASH": "router"}):
            pass
    assert Path(str(caught.value).rpartition(" ")[2]).exists()  # noqa: ASYNC240 - nothing else runs
    assert not any(is_alive(pid) for pid in log.pids)


async def test_a_command_that_is_not_installed_is_named(log: ClusterLog, tmp_path: Path) -> None:
    settings = Settings({}, cores=2, runs=tmp_path, state=tmp_path)
    cluster = Cluster(a_file(), settings, Executables(("/nowhere/sie-router",), STAND_INS.server), log.add)
    with pytest.raises(ClusterError, match="/nowhere/sie-router does not exist"):
        async with cluster:
            pass


async def test_a_port_in_use_is_named_with_what_to_do_and_nothing_is_started(
    log: ClusterLog, a_cluster: MakeCluster
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} is in use .* sie up --port {port + 1}"):
            async with a_cluster(a_file(port=port)):
                pass
    assert log.events == []


async def test_every_port_is_free_and_the_logs_are_gone_after_a_clean_end(
    log: ClusterLog, a_cluster: MakeCluster
) -> None:
    async with a_cluster(a_file(routers=2)) as cluster:
        cluster.scale("l4", 1)
        worker = await log.phase("l4-0", Phase.READY)
        urls = (*cluster.urls, worker.url)
        assert len(set(urls)) == 3
    assert all(is_free(int(url.rpartition(":")[2])) for url in urls)
    assert not cluster.run_dir.exists()


async def test_a_cancelled_cluster_leaves_no_process(log: ClusterLog, a_cluster: MakeCluster) -> None:

    async def live() -> None:
        async with a_cluster(a_file()) as cluster:
            cluster.scale("l4", 2)
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await log.phase("l4-1", Phase.STARTED)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert not any(is_alive(pid) for pid in log.pids)


async def test_a_second_cancellation_kills_what_does_not_want_to_end(log: ClusterLog, a_cluster: MakeCluster) -> None:

    async def live() -> None:
        async with a_cluster(a_file(), {"SIE_TEST_STUBBORN": "l4-0"}) as cluster:
            cluster.scale("l4", 1)
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await log.phase("l4-0", Phase.READY)
    task.cancel()
    stopping = await log.phase("l4-0", Phase.STOPPING)
    await log.phase("router-0", Phase.STOPPED)
    assert is_alive(stopping.pid)
    task.cancel()
    await asyncio.wait((task,))
    assert not is_alive(stopping.pid)


async def test_demand_starts_a_worker_and_its_end_stops_it_after_the_cooldown(
    log: ClusterLog, a_cluster: MakeCluster, tmp_path: Path
) -> None:
    facts = tmp_path / "demand"
    facts.write_text("l4 default 0\n")
    file = a_file(scaling="cooldownPeriod: 0.3")
    async with a_cluster(file, {"SIE_TEST_DEMAND": str(facts)}) as cluster:
        running = asyncio.create_task(run(cluster, file, log.add))
        facts.write_text("l4 default 1\n")
        await log.phase("l4-0", Phase.READY)
        facts.write_text("l4 default 0\n")
        await log.phase("l4-0", Phase.STOPPED)
        running.cancel()
        await asyncio.wait((running,))
    changes = [event for event in log.events if isinstance(event, ScaleEvent)]
    assert [(event.pool, event.change.after) for event in changes] == [("l4", 1), ("l4", 0)]
    assert explain(changes[0].change) == "demand 1 > 0: 0 -> 1"


async def test_a_killed_router_comes_back_at_the_same_address_and_workers_stay(
    log: ClusterLog, a_cluster: MakeCluster, tmp_path: Path
) -> None:
    facts = tmp_path / "demand"
    facts.write_text("l4 default 1\n")
    file = a_file(scaling="cooldownPeriod: 0.1")
    async with a_cluster(file, {"SIE_TEST_DEMAND": str(facts)}) as cluster:
        running = asyncio.create_task(run(cluster, file, log.add))
        await log.phase("l4-0", Phase.READY)
        router = await log.phase("router-0", Phase.READY)
        kill(router.pid, signal.SIGKILL)
        crashed = await log.phase("router-0", Phase.CRASHED)
        again = await log.phase("router-0", Phase.READY, after=log.events.index(crashed))
        assert again.url == router.url
        assert (cluster.size("l4"), log.of(Phase.STOPPING)) == (1, [])
        running.cancel()
        await asyncio.wait((running,))


async def test_children_of_a_killed_parent_are_gone() -> None:
    # The parent is a process of its own that starts a sleeping child through the launcher, then is killed.
    from sie_cli import child  # noqa: PLC0415 - only its path is of interest

    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, '-I', '-S', {child.__file__!r}, str(os.getpid())]\n"
        "program = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)']\n"
        "sleeper = subprocess.Popen([*command, *program])\n"
        "print(sleeper.pid, flush=True)\n"
        "time.sleep(600)",
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    lines = {await parent.stdout.readline(), await parent.stdout.readline()}  # the pid, and the child's sign of life
    pid = next(int(line) for line in lines if int(line) != 1)
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not is_alive(pid))
