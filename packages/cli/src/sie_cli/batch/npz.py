"""Rows as an .npz archive that `numpy.load` opens, written without ever holding all of them.

`ids`; `dense` of shape [rows, dims]; sparse vectors as `sparse_indptr`, `sparse_indices`, `sparse_values` (the three
arrays of scipy's csr_matrix); multivectors as `multivector` of shape [all tokens, dims] and `multivector_indptr`: row r
has `multivector[indptr[r]:indptr[r + 1]]`; `score`; the way back from int8 and uint8 as `dense_scale` and so on.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sie_cli.batch.job import BatchError, Row

Array = npt.NDArray[Any]


class _Column:
    """One array that grows in a file of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.length = 0
        self.first: Array | None = None
        self._path = folder / name
        self._file: IO[bytes] = self._path.open("wb")

    def add(self, values: Array) -> None:
        """Append along the first axis. All pieces have the dtype and inner shape of the first."""
        if self.first is None:
            self.first = values[:0]
        elif values.dtype != self.first.dtype or values.shape[1:] != self.first.shape[1:]:
            raise BatchError(
                f"'{self.name}' changes from {self.first.dtype}{list(self.first.shape[1:])} to "
                f"{values.dtype}{list(values.shape[1:])} within one output; an .npz cannot hold that, a .jsonl can"
            )
        self._file.write(np.ascontiguousarray(values).tobytes())
        self.length += len(values)

    def close(self) -> None:
        self._file.close()

    def into(self, archive: zipfile.ZipFile) -> None:
        """Copy the finished column into the archive."""
        self.close()
        assert self.first is not None  # noqa: S101 - a column is made to add to it
        shape = (self.length, *self.first.shape[1:])
        header = {"descr": np.lib.format.dtype_to_descr(self.first.dtype), "fortran_order": False, "shape": shape}
        with archive.open(f"{self.name}.npy", "w", force_zip64=True) as member, self._path.open("rb") as data:
            np.lib.format.write_array_header_2_0(member, header)
            shutil.copyfileobj(data, member)


class _Columns:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.by_name: dict[str, _Column] = {}

    def add(self, name: str, values: Array) -> None:
        if name not in self.by_name:
            self.by_name[name] = _Column(self._folder, name)
        self.by_name[name].add(values)

    def add_ragged(self, name: str, indptr: str, values: Array) -> None:
        """Append a piece of any length and where it ends."""
        if indptr not in self.by_name:
            self.add(indptr, np.zeros(1, np.int64))
        self.add(name, values)
        self.add(indptr, np.array([self.by_name[name].length], np.int64))


def write_npz(path: Path, rows: Iterable[Row]) -> None:
    """Write the archive; temporary files lie beside it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        columns, count, widest = _Columns(Path(folder)), 0, 1
        try:
            with (Path(folder) / "ids").open("wb") as ids:
                for row in rows:
                    encoded = row["id"].encode("utf-32-le")
                    ids.write(len(encoded).to_bytes(4, "little") + encoded)
                    count, widest = count + 1, max(widest, len(row["id"]))
                    _add(columns, row)
            with zipfile.ZipFile(path, "w") as archive:
                _write_ids(archive, Path(folder) / "ids", count, widest)
                for column in columns.by_name.values():
                    column.into(archive)
        finally:
            for column in columns.by_name.values():
                column.close()


def _add(columns: _Columns, row: Row) -> None:
    if (dense := row.get("dense")) is not None:
        columns.add("dense", dense[np.newaxis])
    if (sparse := row.get("sparse")) is not None:
        columns.add_ragged("sparse_indices", "sparse_indptr", sparse["indices"])
        columns.add("sparse_values", sparse["values"])
    if (multivector := row.get("multivector")) is not None:
        columns.add_ragged("multivector", "multivector_indptr", multivector)
    if "score" in row:
        columns.add("score", np.array([row["score"]], np.float32))
    for output, way in row.get("quantization", {}).items():
        for name, value in way.items():
            columns.add(f"{output}_{name}", np.atleast_1d(np.asarray(value, np.float32)))


def _write_ids(archive: zipfile.ZipFile, path: Path, count: int, widest: int) -> None:
    """Strings of one width, as numpy stores them."""
    header = {"descr": f"<U{widest}", "fortran_order": False, "shape": (count,)}
    with archive.open("ids.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        for encoded in _prefixed(path):
            member.write(encoded.ljust(4 * widest, b"\0"))


def _prefixed(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(4):
            yield file.read(int.from_bytes(head, "little"))
