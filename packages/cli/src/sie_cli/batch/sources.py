"""Where texts come from: arguments, lines, JSON lines, columns of Parquet. Read as needed, never whole."""

import re
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from sie_cli.batch.job import BatchError, Record
from sie_cli.extras import pyarrow_parquet
from sie_cli.failing import UseError

STDIN: Final = "-"
TEXT_SUFFIXES: Final = (".txt",)
JSONL_SUFFIXES: Final = (".jsonl", ".ndjson")
PARQUET_SUFFIX: Final = ".parquet"
_ENDING: Final = re.compile(r"\w\.[A-Za-z][A-Za-z0-9]{0,5}$")
READ_ROWS: Final = 1024  # of a Parquet file at a time


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the fields or columns that hold the text and, if records have ids of their own, the id.

    `keep_going`: what cannot be read gives a record with a `fault` instead of ending it all.
    """

    text: str = "text"
    id: str | None = None
    keep_going: bool = False

    def settled(self, number: int, read: Callable[[], Record]) -> Record:
        """The record of this number.

        Raises:
            BatchError: it cannot be read, and that is the end.
        """
        try:
            return read()
        except BatchError as error:
            if self.keep_going:
                return Record(str(number), "", str(error))
            raise BatchError(f"{error}; --keep-going sets such records aside and does the others") from error


def records(inputs: Sequence[str], columns: Columns, *, texts: bool) -> Iterator[Record]:
    """The records of one input: with `texts` the arguments themselves, else one file, or stdin for none and "-".

    Stdin is read as JSON lines when its first line is a JSON object, else as lines.

    Raises:
        UseError: that is not one input of a known kind.
        BatchError: a line or column is not what it should be; the message says which.
        OSError: the file cannot be read.
    """
    if texts:
        _no_folder(inputs)
        return (Record(str(number), text) for number, text in enumerate(inputs, 1))
    if len(inputs) > 1:
        raise UseError(
            f"one input at a time; found {len(inputs)}: join the files first (cat a.jsonl b.jsonl | sie ...)"
        )
    name = inputs[0] if inputs else STDIN
    if name == STDIN:
        return _sniffed(sys.stdin.buffer, columns)
    path = Path(name)
    if not path.exists():
        where = f"there is no folder '{path.parent}'" if not path.parent.is_dir() else f"there is none in {path.parent}"
        raise UseError(f"no file '{name}': {where}; name one, or give texts, or nothing and lines to stdin")
    suffix = path.suffix.lower()
    if suffix == PARQUET_SUFFIX:
        return _parquet(path, columns)
    if suffix in JSONL_SUFFIXES:
        return _of_file(path, lambda lines: _json_lines(lines, columns, name))
    if suffix in TEXT_SUFFIXES:
        return _of_file(path, lambda lines: _lines(lines, columns, name))
    raise UseError(
        f"{name}: what kind of file is that? A text a line: .txt; JSON lines: .jsonl; or .parquet. Any other name: "
        f"sie ... < {name}"
    )


def count(inputs: Sequence[str], *, texts: bool) -> int | None:
    """How many records there are at most, for a progress bar; None for stdin."""
    if texts:
        return len(inputs)
    if not inputs or inputs[0] == STDIN:
        return None
    path = Path(inputs[0])
    if len(inputs) > 1 or not path.exists():
        return None
    if path.suffix.lower() == PARQUET_SUFFIX:
        return int(pyarrow_parquet().read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def is_file(inputs: Sequence[str]) -> bool:
    """Whether the arguments name an input rather than being texts: nothing, "-", or what is or looks like a file."""
    return not inputs or list(inputs) == [STDIN] or any(map(_names_a_file, inputs))


def _names_a_file(text: str) -> bool:
    try:
        if Path(text).is_file():
            return True
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False
    known = (*TEXT_SUFFIXES, *JSONL_SUFFIXES, PARQUET_SUFFIX)
    return not any(map(str.isspace, text)) and Path(text).suffix.lower() in known


def misspelt(inputs: Sequence[str]) -> str | None:
    """A text that was more likely meant as the name of a file: alone, without blanks, with a folder or an ending."""
    if len(inputs) != 1 or is_file(inputs) or any(map(str.isspace, inputs[0])) or "://" in inputs[0]:
        return None
    return inputs[0] if "/" in inputs[0] or _ENDING.search(inputs[0]) else None


def _no_folder(inputs: Sequence[str]) -> None:
    for text in inputs:
        if (len(inputs) == 1 or "/" in text) and _is_folder(text):
            raise UseError(f"'{text}' is a folder; name one file in it, or, as a text: echo '{text}' | sie ...")


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # as above
        return False


def _of_file(path: Path, read: Callable[[Iterator[bytes]], Iterator[Record]]) -> Iterator[Record]:
    with path.open("rb") as file:
        yield from read(_chained(file.readline(), file))


def _sniffed(file: IO[bytes], columns: Columns) -> Iterator[Record]:
    first = file.readline()
    lines = _chained(first, file)
    is_json = first.removeprefix(BOM_UTF8).lstrip().startswith(b"{")
    return _json_lines(lines, columns, "stdin") if is_json else _lines(lines, columns, "stdin")


def _chained(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    """All lines, without the mark that some editors set in front of the first."""
    if first:
        yield first.removeprefix(BOM_UTF8)
    yield from file


def _lines(lines: Iterator[bytes], columns: Columns, name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = columns.settled(number, partial(_text, line, number, name))
            if record.fault or record.text.strip():
                yield record


def _text(line: bytes, number: int, name: str) -> Record:
    try:
        return Record(str(number), line.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise BatchError(
            f"{name}, line {number}: no UTF-8 (byte {error.start}); convert it first: iconv -f latin1 -t utf-8"
        ) from error


def _json_lines(lines: Iterator[bytes], columns: Columns, name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield columns.settled(number, partial(_object, line, columns, name, number))


def _object(line: bytes, columns: Columns, name: str, number: int) -> Record:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BatchError(f"{name}, line {number}: no JSON ({error}); mend the line, or name the file .txt") from error
    if not isinstance(value, dict):
        raise BatchError(f"{name}, line {number}: expected an object such as {{'{columns.text}': '...'}}")
    return _record(value, columns, f"{name}, line {number}", number)


def _parquet(path: Path, columns: Columns) -> Iterator[Record]:
    parquet = pyarrow_parquet()
    wanted = [columns.text] if columns.id is None else [columns.text, columns.id]
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise BatchError(f"{path}: no column '{missing[0]}'; it has {', '.join(names)} (--field, --id-field)")
        number = 0
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=wanted):
            for value in batch.to_pylist():
                number += 1
                yield columns.settled(number, partial(_record, value, columns, f"{path}, row {number}", number))


def _record(value: dict[str, Any], columns: Columns, place: str, number: int) -> Record:
    text = value.get(columns.text)
    if not isinstance(text, str):
        found = f"it has {', '.join(value) or 'no fields'}" if text is None else f"it is {type(text).__name__}"
        raise BatchError(f"{place}: no text in '{columns.text}'; {found} (--field names the field of the text)")
    if columns.id is None:
        return Record(str(number), text)
    if value.get(columns.id) is None:
        raise BatchError(f"{place}: no id in '{columns.id}' (--id-field)")
    return Record(str(value[columns.id]), text)
