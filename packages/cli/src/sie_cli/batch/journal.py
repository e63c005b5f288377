"""The file beside the output that makes a run resumable: every answered chunk, in the order of the input.

The journal is the only thing that is written while a run goes on; the output is made from it at the end and appears
whole. A frame is `length, crc32, payload`; a frame that a crash tore is recognised by either, and cut off. Each frame
holds the digest of all records up to its end, so that a run continues only on the input it began with.
"""

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec

from sie_cli.batch.job import BatchError, Job, Record, Row
from sie_protocol import arrays

SUFFIX: Final = ".partial"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<QI")
_encoder: Final = msgspec.msgpack.Encoder(enc_hook=arrays.pack)


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    count: int
    digest: bytes
    rows: msgspec.Raw


class Chain:
    """Digest of a sequence of records."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, records: Iterable[Record]) -> bytes:
        """Take in further records; the digest of all so far."""
        for record in records:
            faults = (record.fault.encode(errors="replace"),) if record.fault else ()
            for part in (record.id.encode(), record.text.encode(errors="surrogatepass"), *faults):
                self._hash.update(len(part).to_bytes(8, "little") + part)
        return self._hash.digest()


class Journal:
    """One run's answers so far. Holds a lock: a second run with the same output is refused.

    `count` is the number of records that are settled, `digest` that of their sequence (None when there are none).
    """

    def __init__(self, path: Path, job: Job, *, anew: bool = False) -> None:
        self.path = path
        self.count = 0
        self.digest: bytes | None = None
        self._job = {"version": _VERSION, **job.described()}
        self._file: IO[bytes] = path.open("a+b")
        try:
            self._lock()
            if anew:
                self._file.truncate(0)
            self._recover()
        except BaseException:
            self._file.close()
            raise

    def append(self, rows: Sequence[Row], digest: bytes) -> None:
        """Settle the next records. They are with the operating system when this returns: a kill does not lose them."""
        self._write(_encoder.encode([len(rows), digest, rows]))
        self.count += len(rows)
        self.digest = digest

    def rows(self) -> Iterator[Row]:
        """All settled rows in order, arrays as arrays; holds one chunk at a time."""
        for payload in self._payloads(skip_header=True):
            frame = msgspec.msgpack.decode(payload, type=_Frame)
            yield from arrays.unpack(msgspec.msgpack.decode(frame.rows))

    def delete(self) -> None:
        """The output is there; the journal has no use any more."""
        self.path.unlink()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BatchError(f"another run writes {self.path}; wait for it, or choose another output") from error
        if not self._is_at_its_place():
            raise BatchError(f"another run just ended and deleted {self.path}; look at its output, or run this again")

    def _is_at_its_place(self) -> bool:
        """False when whoever had the lock deleted the file before this one had it: a lock that nobody else sees."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _recover(self) -> None:
        """Read what is there up to the first torn frame, and cut off the rest."""
        end, header = 0, None
        for payload in self._payloads(skip_header=False):
            if header is None:
                header = _decoded(payload)
            else:
                frame = msgspec.msgpack.decode(payload, type=_Frame)
                self.count, self.digest = self.count + frame.count, frame.digest
            end += _HEAD.size + len(payload)
        self._file.truncate(end)
        if header is None:
            self._write(_encoder.encode(self._job))
        elif header != self._job:
            raise BatchError(f"{self.path} belongs to {_differs(header, self._job)}; --overwrite begins anew")

    def _payloads(self, *, skip_header: bool) -> Iterator[bytes]:
        self._file.flush()
        with self.path.open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                length, crc = _HEAD.unpack(head)
                if length > self.path.stat().st_size:
                    return
                payload = file.read(length)
                if len(payload) < length or zlib.crc32(payload) != crc:
                    return
                if not skip_header:
                    yield payload
                skip_header = False

    def _write(self, payload: bytes) -> None:
        self._file.write(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        self._file.flush()


def _decoded(payload: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(payload)
    except msgspec.DecodeError:
        return {}


def _differs(theirs: Any, ours: dict[str, Any]) -> str:
    """What another job has that this one has not, in words."""
    if not isinstance(theirs, dict) or theirs.get("version") != _VERSION:
        return "no run of this version"
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    told = (f"{name.replace('_', ' ')} {theirs.get(name)!r}, not {ours.get(name)!r}" for name in names)
    return "a run with " + "; ".join(told)
