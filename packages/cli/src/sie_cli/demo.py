"""`sie demo`: a cluster at zero, one real request, and what happens until its vectors are there. Then more of them."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from sie_cli import clusterfile, settings
from sie_cli.cluster import Cluster
from sie_cli.clusterfile import ClusterFile
from sie_cli.console import Reporter
from sie_cli.events import Event, Phase, ProcessEvent, ScaleEvent
from sie_cli.programs import Executables
from sie_cli.similarity import Vectors, closest_pairs, nearest
from sie_cli.threads import in_thread
from sie_cli.up import run, until_signal
from sie_protocol.errors import ErrorCode
from sie_protocol.versions import VERSION, dialect_for
from sie_sdk import SIEAsyncClient, SIEClient, SIEError, WaitEvent
from sie_sdk.types import Item

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PROFILE = "cpu"
PROVISIONING_STATUS = dialect_for(VERSION).provisioning_status  # how this SDK hears that a worker is on its way
QUERIES = (
    "How do I make bread at home?",
    "Which animals are clever?",
    "I want to end my rental agreement",
)
MODEL_STATIONS = ("loading", "loaded")
NEIGHBOURS = 3
PAIRS = 5
START_BUDGET_S = 180.0  # from nothing to a vector; a cold disk and a busy machine included
WATCH_EVERY_S = 0.05


class DemoError(RuntimeError):
    """The demo could not show what it promises; the message says why."""


@dataclass(slots=True)
class Story:
    """When the stations of the first request were reached.

    Written by the event loop and, in `waiting`, by the client's thread; each write is one operation on a dict.
    """

    reporter: Reporter
    stations: dict[str, float] = field(default_factory=dict)
    crash: "asyncio.Future[ProcessEvent]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def reach(self, station: str, at: float | None = None) -> None:
        """Note a station the first time it is reached."""
        self.stations.setdefault(station, time.monotonic() if at is None else at)

    def event(self, event: Event) -> None:
        """Print what the cluster does, and note what belongs to the story."""
        self.reporter.event(event)
        match event:
            case ScaleEvent(pool=pool, at=at) if pool == PROFILE:
                self.reach("scaled 0 -> 1", at)
            case ProcessEvent(phase=Phase.CRASHED) if not self.crash.done():
                self.crash.set_result(event)
            case ProcessEvent(name=name, phase=phase, at=at) if name == f"{PROFILE}-0":
                self.reach(f"worker process {phase}", at)
            case _:
                pass

    def waiting(self, wait: WaitEvent) -> None:
        """Print why the client waits; called from the client's thread."""
        is_new = f"client told: {wait.reason}" not in self.stations
        self.reach(f"client told: {wait.reason}")
        status = f"{PROVISIONING_STATUS} " if wait.reason == ErrorCode.PROVISIONING else ""
        why = f" ({wait.message})" if is_new else ""
        again = (
            f"the router keeps it, {wait.delay_s:.0f} s at most" if wait.held else f"asks again in {wait.delay_s:.1f} s"
        )
        self.reporter.line(f"client: attempt {wait.attempt}: {status}{wait.reason}{why}; {again}", "blue")


def sentences() -> tuple[str, ...]:
    """The packaged text, one sentence each."""
    text = resources.files("sie_cli").joinpath("data", "sentences.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


async def demo(console: Console) -> bool:
    """Run the demo; True when a signal ended it early.

    Raises:
        DemoError, ClusterError: it did not come to its end.
    """
    file = clusterfile.decode(clusterfile.default_text())
    file = msgspec.structs.replace(file, router=msgspec.structs.replace(file.router, port=0))
    reporter = Reporter(console)
    is_interrupted = await until_signal(_act(file, reporter), lambda: reporter.line("stopping", "yellow"))
    reporter.line("everything is stopped")
    return is_interrupted


async def _act(file: ClusterFile, reporter: Reporter) -> None:
    story = Story(reporter)
    cluster = Cluster(file, settings.load(), Executables.beside(sys.executable), story.event)
    async with cluster:
        reporter.line(f"cluster of {len(cluster.pools)} pools, all empty, answers on {cluster.urls[0]}", "bold")
        running = asyncio.create_task(run(cluster, file, story.event))
        try:
            await _tell(story, cluster, running, file)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _tell(story: Story, cluster: Cluster, running: "asyncio.Task[None]", file: ClusterFile) -> None:
    texts, url = sentences(), cluster.urls[0]
    with SIEClient(url, on_wait=story.waiting) as client:

        async def embed(lines: Sequence[str]) -> Vectors:
            work = in_thread(lambda: encode(client, lines))
            try:
                await asyncio.wait((work, story.crash, running), return_when=asyncio.FIRST_COMPLETED)
                return _outcome(work, story, running)
            finally:
                work.cancel()  # an interrupted demo no longer wants what the thread brings

        story.reach("request sent")
        story.reporter.line(f"client: encode('{MODEL}', ..., gpu='{PROFILE}')", "blue")
        watch = asyncio.create_task(_watch_model(url, story))
        try:
            first = await embed(texts[:1])
            story.reach("first vector")
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        story.reporter.line(f"client: first vector, result['dense'].shape == {first[0].shape}", "bold green")
        _print_stations(story)
        started_at = time.monotonic()
        vectors = await embed(texts)
        warm_ms = (time.monotonic() - started_at) * 1000
        story.reporter.line(f"client: {len(texts)} sentences in one call on the warm worker: {warm_ms:.0f} ms", "green")
        _print_neighbours(story.reporter.console, texts, vectors, await embed(QUERIES))
    cooldown = f"its traffic counts for a minute, then the cooldown of {file.autoscaling.cooldown_period:g} s runs"
    story.reporter.line(f"left alone, pool {PROFILE} would be empty again soon: {cooldown}; the demo stops it now")


def encode(client: SIEClient, lines: Sequence[str]) -> Vectors:
    """Embed texts through the SDK; vectors of shape [texts, dims]."""
    items = [Item(text=line) for line in lines]
    results = client.encode(MODEL, items, gpu=PROFILE, provision_timeout_s=START_BUDGET_S)
    return np.stack([result["dense"] for result in results])


def _outcome(work: "asyncio.Future[Vectors]", story: Story, running: "asyncio.Task[None]") -> Vectors:
    if not work.done():
        if story.crash.done():
            event = story.crash.result()
            raise DemoError(f"{event.name} ended by itself with status {event.status}; its last lines are above")
        running.result()
    try:
        return work.result()
    except SIEError as error:
        raise DemoError(f"the request failed: {error}") from error


async def _watch_model(url: str, story: Story) -> None:
    """Note and print each state of the model that the router tells, until cancelled."""
    seen = None
    async with SIEAsyncClient(url) as client:
        while True:
            with contextlib.suppress(SIEError):  # it only watches; the request itself reports what goes wrong
                state = (await client.get_model(MODEL)).get("state")
                if state != seen:
                    seen = state
                    if state in MODEL_STATIONS:
                        story.reach(f"model {state}")
                    story.reporter.line(f"router: {MODEL} is {state}", "cyan")
            await asyncio.sleep(WATCH_EVERY_S)


def _print_stations(story: Story) -> None:
    stations = sorted(story.stations.items(), key=lambda station: station[1])
    sent_at = story.stations["request sent"]
    table = Table(title="From request to vector, measured", title_justify="left", header_style="dim")
    table.add_column("station")
    table.add_column("s after the request", justify="right")
    table.add_column("s after the last", justify="right")
    last_at = sent_at
    for name, at in stations:
        if at >= sent_at:
            table.add_row(name, f"{at - sent_at:.2f}", f"{at - last_at:.2f}")
            last_at = at
    story.reporter.console.print(table)
    took_s = story.stations["first vector"] - story.stations[f"worker process {Phase.STARTED}"]
    story.reporter.line(f"from the start of the worker process to the first vector: {took_s:.2f} s", "bold green")


def _print_neighbours(console: Console, texts: Sequence[str], vectors: Vectors, queries: Vectors) -> None:
    table = Table(title="Nearest sentences", title_justify="left", header_style="dim")
    for column in ("query", "cosine", "sentence"):
        table.add_column(column)
    for query, matches in zip(QUERIES, nearest(queries, vectors, NEIGHBOURS), strict=True):
        for rank, match in enumerate(matches):
            is_last = rank == len(matches) - 1
            table.add_row("" if rank else query, f"{match.cosine:.3f}", texts[match.right], end_section=is_last)
    console.print(table)
    table = Table(title="Most similar pairs", title_justify="left", header_style="dim")
    for column in ("cosine", "one", "other"):
        table.add_column(column)
    for match in closest_pairs(vectors, PAIRS):
        table.add_row(f"{match.cosine:.3f}", texts[match.left], texts[match.right], end_section=True)
    console.print(table)
