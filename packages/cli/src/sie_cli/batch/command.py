"""From the words of the command line to a batch run and its exit code."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer
from rich.console import Console

from sie_cli.batch import sources
from sie_cli.batch.job import Job
from sie_cli.batch.progress import Progress
from sie_cli.batch.run import Plan, Summary, run
from sie_cli.failing import INCOMPLETE, INTERRUPTED, UseError
from sie_sdk import SIEAsyncClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the three commands share. `errors`: None with `keep_going` chooses a name beside the output."""

    url: str
    api_key: str | None
    inputs: Sequence[str]
    columns: sources.Columns
    output: Path | None
    errors: Path | None
    keep_going: bool
    overwrite: bool
    batch_size: int
    concurrency: int
    budget_s: float
    is_json: bool
    top_k: int | None = None


def execute(job: Job, given: Given) -> None:
    """Run a job, tell how it ended, and leave with its exit code.

    Raises:
        UseError, BatchError, SIEError, OSError: it could not go on.
    """
    texts = not sources.is_file(given.inputs)
    total = sources.count(given.inputs, texts=texts)
    for option, path in (("--output", given.output), ("--errors", given.errors)):
        _needs_folder(option, path)
    plan = Plan(
        batch_size=given.batch_size,
        concurrency=given.concurrency,
        budget_s=given.budget_s,
        output=given.output,
        errors=_errors(given),
        overwrite=given.overwrite,
        top_k=given.top_k,
    )
    console = Console(stderr=True, highlight=False)
    if not given.inputs and sys.stdin.isatty():
        console.print("texts, one a line; Ctrl-D ends them")
    name = sources.misspelt(given.inputs)
    if name is not None:
        console.print(f"sie: there is no file '{name}', so it is taken as a text", soft_wrap=True, markup=False)
    records = sources.records(given.inputs, given.columns, texts=texts)
    started_at = time.monotonic()

    connections = given.concurrency + 1  # also of one request at a time, a router may keep one

    async def work() -> Summary:
        with Progress(console, total) as progress:
            async with SIEAsyncClient(
                given.url, api_key=given.api_key, max_connections=connections, on_wait=progress.waiting
            ) as client:
                return await run(job, records, plan, client, progress)

    _tell(asyncio.run(work()), plan, console, given, time.monotonic() - started_at)


def _needs_folder(option: str, path: Path | None) -> None:
    if path is not None and not path.parent.is_dir():
        raise UseError(f"{option} {path}: there is no folder '{path.parent}'; make it first: mkdir -p {path.parent}")


def _errors(given: Given) -> Path | None:
    if given.errors is not None or not given.keep_going:
        return given.errors
    if given.output is None:
        raise UseError("--keep-going needs --errors FILE when the output goes to stdout")
    return given.output.with_name(given.output.name + ".errors.jsonl")


def _tell(summary: Summary, plan: Plan, console: Console, given: Given, took_s: float) -> None:
    if given.is_json and plan.output is not None:
        facts = {
            "records": summary.records,
            "errors": summary.errors,
            "resumed": summary.resumed,
            "interrupted": summary.is_interrupted,
            "output": None if summary.is_interrupted else str(plan.output),
            "seconds": round(took_s, 3),
        }
        print(msgspec.json.encode(facts).decode())
    elif not summary.records and not summary.is_interrupted:
        console.print(f"no records: {_nothing(given)} has no text", soft_wrap=True, markup=False)
    elif plan.output is not None or summary.is_interrupted or summary.errors:
        console.print(_sentence(summary, plan, took_s), soft_wrap=True, markup=False)
    if summary.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.errors:
        raise typer.Exit(INCOMPLETE)


def _nothing(given: Given) -> str:
    return given.inputs[0] if given.inputs and given.inputs[0] != sources.STDIN else "stdin"


def _sentence(summary: Summary, plan: Plan, took_s: float) -> str:
    refused = f", {summary.errors} refused: see {plan.errors}" if summary.errors else ""
    if summary.is_interrupted:
        kept = "" if plan.output is None else "; the same command goes on from there"
        return f"interrupted after {summary.records} records{kept}{refused}"
    done = summary.records - summary.errors
    before = f", {summary.resumed} of them by an earlier run" if summary.resumed else ""
    where = "" if plan.output is None else f" to {plan.output}"
    return f"{done} records{where} in {took_s:.1f} s{before}{refused}"
