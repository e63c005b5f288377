"""A batch run from its first record to its output: resumes, keeps order, shows progress, stops cleanly."""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sie_cli.batch import outputs
from sie_cli.batch.calls import Caller
from sie_cli.batch.job import BatchError, Job, Record, Row, is_error
from sie_cli.batch.journal import SUFFIX, Chain, Journal
from sie_cli.batch.ordered import chunked, in_order
from sie_cli.batch.progress import Progress
from sie_sdk import SIEAsyncClient

FINISH_S = 10.0  # after the first Ctrl-C: what is under way may still be answered


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is carried out; nothing of it changes a result.

    `errors`: where refused records go, None to stop at the first. `budget_s`: longest time for one request with all
    its waits, for example for a worker that starts.
    """

    batch_size: int
    concurrency: int
    budget_s: float
    output: Path | None = None
    errors: Path | None = None
    overwrite: bool = False
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run. `resumed`: records that an earlier run had settled."""

    records: int
    errors: int
    resumed: int = 0
    is_interrupted: bool = False


async def run(job: Job, source: Iterator[Record], plan: Plan, client: SIEAsyncClient, progress: Progress) -> Summary:
    """Do the job.

    Raises:
        BatchError, OSError, SIEError: it cannot go on. What was answered by then is kept for the next run.
    """
    caller = Caller(client, job, keep_going=plan.errors is not None, budget_s=plan.budget_s)
    if plan.output is None:
        return await _to_stdout(caller, source, plan, progress)
    write = outputs.writer(job, plan.output)
    journal_path = plan.output.with_name(plan.output.name + SUFFIX)
    if plan.output.exists() and not plan.overwrite:
        raise BatchError(f"{plan.output} exists already; --overwrite replaces it")
    try:
        opened = Journal(journal_path, job, anew=plan.overwrite)
    except OSError as error:
        raise BatchError(f"{plan.output} cannot be written: {error.strerror}; choose another --output") from error
    with _telling_of_a_full_disk(plan.output), opened as journal:
        chain, resumed = Chain(), journal.count
        _skip(source, journal, chain)
        progress.start(resumed)
        async with stopping(progress.say) as stop:
            chunks = chunked(source, plan.batch_size)
            async for records, rows in in_order(chunks, caller.rows, plan.concurrency, stop):
                journal.append(rows, chain.add(records))
                progress.advance(rows)
        if stop.is_set():  # asked outside: what was cancelled never comes to the end of the block
            return Summary(journal.count, progress.errors, resumed, is_interrupted=True)
        progress.note("writing the output")
        errors = _finish(journal, plan, write)
        return Summary(journal.count, errors, resumed)


@contextlib.contextmanager
def _telling_of_a_full_disk(output: Path) -> Iterator[None]:
    """The system says that there is no room, but not where, nor that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise BatchError(f"{output}: {error.strerror}; make room, and the same command goes on from there") from error


def _skip(source: Iterator[Record], journal: Journal, chain: Chain) -> None:
    """Read past what an earlier run settled, and make sure that it is the same."""
    digest = None
    for records in chunked(islice(source, journal.count), 1024):
        digest = chain.add(records)
    if digest != journal.digest:
        raise BatchError(
            f"the first {journal.count} records are not those that {journal.path} holds the answers of; give the same "
            "input and --field as before, or begin anew with --overwrite"
        )


def _finish(journal: Journal, plan: Plan, write: outputs.Write) -> int:
    """Make the output from the journal; the number of refused records."""
    assert plan.output is not None  # noqa: S101 - a journal lies beside an output
    errors = 0
    if plan.errors is not None:
        errors = sum(is_error(row) for row in journal.rows())
        refused = (row for row in journal.rows() if is_error(row))
        if errors:
            replacing(plan.errors, lambda path: outputs.write_json_lines(path, refused))
    # Last: where the output is, nothing is missing.
    good: Iterable[Row] = (row for row in journal.rows() if not is_error(row))
    replacing(plan.output, lambda path: write(path, good if plan.top_k is None else outputs.best(good, plan.top_k)))
    journal.delete()
    return errors


def replacing(path: Path, write: Callable[[Path], None]) -> None:
    """Let a file appear whole: written under another name beside it, on the disk, then renamed."""
    unfinished = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        write(unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


async def _to_stdout(caller: Caller, source: Iterator[Record], plan: Plan, progress: Progress) -> Summary:
    """Rows as they come; with `top_k`, the best at the end. A pipe cannot be resumed."""
    progress.start(0)
    count, kept = 0, list[Row]()
    with contextlib.ExitStack() as files:
        refused = None if plan.errors is None else files.enter_context(plan.errors.open("wb"))
        async with stopping(progress.say) as stop:
            chunks = chunked(source, plan.batch_size)
            async for _, rows in in_order(chunks, caller.rows, plan.concurrency, stop):
                count += len(rows)
                progress.advance(rows)
                good = [row for row in rows if not is_error(row)]
                if refused is not None:
                    outputs.write_rows(refused, (row for row in rows if is_error(row)))
                if plan.top_k is None:
                    outputs.write_rows(sys.stdout.buffer, good)
                else:
                    kept = list(outputs.best([*kept, *good], plan.top_k))
    outputs.write_rows(sys.stdout.buffer, kept)
    return Summary(count, progress.errors, is_interrupted=stop.is_set())


@contextlib.asynccontextmanager
async def stopping(say: Callable[[str], None]) -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set. A second one, or `FINISH_S` without an end, cancels what runs."""
    loop, stop, task = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    timers: list[asyncio.TimerHandle] = []

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
            return
        stop.set()
        say(f"stopping: what is under way has {FINISH_S:.0f} s; Ctrl-C again ends it now")
        timers.append(loop.call_later(FINISH_S, task.cancel))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        task.uncancel()
    finally:
        for timer in timers:
            timer.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
