"""What rows become: JSON lines, an npz archive, or a Parquet file, chosen by the suffix of the output."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np

from sie_cli.batch.job import EXTRACT, Job, Row
from sie_cli.batch.npz import write_npz
from sie_cli.extras import pyarrow_parquet
from sie_cli.failing import UseError

Write = Callable[[Path, Iterable[Row]], None]
SUFFIXES: Final = (".jsonl", ".npz", ".parquet")


def writer(job: Job, output: Path) -> Write:
    """How to write this output.

    Raises:
        UseError: the suffix is none of `SUFFIXES`, or cannot hold what the job gives.
        MissingExtraError: the format's library is not installed.
    """
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise UseError(f"'{output}': the suffix chooses the format; use one of {', '.join(SUFFIXES)}")
    if suffix == ".jsonl":
        return write_json_lines
    if suffix == ".npz":
        if job.operation == EXTRACT:
            raise UseError("an .npz holds arrays, and extract finds none; use .jsonl or .parquet")
        return write_npz
    pyarrow_parquet()
    from sie_cli.batch.parquet import write_parquet  # noqa: PLC0415 - imports pyarrow

    return write_parquet


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line; arrays are lists of numbers."""
    with path.open("wb") as file:
        write_rows(file, rows)


def write_rows(file: IO[bytes], rows: Iterable[Row]) -> None:
    """One line each, out at once."""
    for row in rows:
        file.write(msgspec.json.encode(row, enc_hook=_listed) + b"\n")
    file.flush()


def best(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """The `count` highest scores with their rank from 0, the highest first; equal ones in the order of the input."""
    numbered = ((row["score"], -place, row) for place, row in enumerate(rows))
    for rank, (_, _, row) in enumerate(heapq.nlargest(count, numbered, key=lambda entry: entry[:2])):
        yield {**row, "rank": rank}


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} has no JSON form")
