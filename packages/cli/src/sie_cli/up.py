"""`sie up`: a cluster of local processes until Ctrl-C."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sie_cli import clusterfile, settings
from sie_cli.autoscale import autoscale
from sie_cli.cluster import Cluster, packaged_catalog
from sie_cli.clusterfile import ClusterFile
from sie_cli.console import Reporter
from sie_cli.events import Emit
from sie_cli.programs import Executables
from sie_protocol.catalog import decode_bundle

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def read_file(path: Path | None, port: int | None) -> ClusterFile:
    """The cluster file, or the packaged one; `port` beats the file's.

    Raises:
        OSError, ValueError: it cannot be read, or something in it is wrong.
    """
    file = clusterfile.decode(clusterfile.default_text() if path is None else _content(path))
    if port is None:
        return file
    return msgspec.structs.replace(file, router=msgspec.structs.replace(file.router, port=port))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise OSError(f"the cluster file '{path}': {reason}; without --file the packaged one is used") from error


def check_bundles(file: ClusterFile, folder: Path) -> None:
    """Refuse pools of bundles that are not in a folder of bundle files: their workers would end as they start.

    Raises:
        ValueError: there is one. A folder that cannot be read is left to the router, which names what is wrong in it.
    """
    try:
        known = [decode_bundle(path.read_bytes()).name.lower() for path in sorted(folder.glob("*.yaml"))]
    except (OSError, ValueError):
        return
    for pool in clusterfile.pools(file):
        if known and pool.bundle not in known:
            there = ", ".join(known)
            raise ValueError(f"pool '{pool.name}' has bundle '{pool.bundle}', which {folder} does not hold: {there}")


async def until_signal(work: Coroutine[None, None, None], on_signal: Callable[[], None]) -> bool:
    """Run `work` to its end. Ctrl-C or SIGTERM cancels it, so that it cleans up; the second one cancels that, too.

    True when a signal ended it.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    signalled = False

    def interrupt() -> None:
        nonlocal signalled
        if not signalled:
            on_signal()
        signalled = True
        task.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    return signalled


async def run(cluster: Cluster, file: ClusterFile, emit: Emit) -> None:
    """Scale a started cluster until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(cluster.failure())
        group.create_task(autoscale(file, cluster.pools, cluster.urls, cluster.scale, emit, cluster.token))


async def up(file: ClusterFile, console: Console) -> None:
    """Run the cluster until a signal; print what happens.

    Raises:
        ClusterError, PortInUseError: it cannot run.
    """
    reporter, own = Reporter(console), settings.load()
    check_bundles(file, own.bundles_dir or (packaged_catalog() or Path()) / "bundles")

    async def work() -> None:
        cluster = Cluster(file, own, Executables.beside(sys.executable), reporter.event)
        async with cluster:
            _greet(console, file, cluster)
            await run(cluster, file, reporter.event)

    await until_signal(work(), lambda: reporter.line("stopping the cluster; Ctrl-C again kills it", "yellow"))
    reporter.line("everything is stopped")


def _greet(console: Console, file: ClusterFile, cluster: Cluster) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("pool", "profile", "bundle", "workers"):
        table.add_column(column)
    for pool in cluster.pools:
        sizes = f"{pool.min_replicas} to {pool.max_replicas}" if file.autoscaling.enabled else str(pool.min_replicas)
        table.add_row(pool.name, pool.profile, pool.bundle, sizes)
    console.print(Text.assemble("SIE answers on ", (" ".join(cluster.urls), "bold green")), soft_wrap=True)
    console.print(table)
    console.print(Text(f"Logs: {cluster.run_dir}   Ctrl-C stops everything."), soft_wrap=True)
