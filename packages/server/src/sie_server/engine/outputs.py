"""Checks what an adapter gave before anybody gets it, and puts together what it gave for the parts of one item."""

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from sie_server.adapters.base import Data, DetectedObject, Output, Outputs, Passage, SparseVector
from sie_server.engine.jobs import Row


def broken_rows(outputs: Outputs, count: int) -> frozenset[int]:
    """The places in a batch of `count` inputs whose outputs hold a number that is not finite.

    Raises:
        RuntimeError: an output has more or fewer rows than the batch.
    """
    found: set[int] = set()
    for kind, rows in outputs.items():
        if len(rows) != count:
            raise RuntimeError(f"the adapter gave {len(rows)} rows of '{kind}' for a batch of {count}")
        if isinstance(rows, np.ndarray):
            finite = np.isfinite(rows).reshape(count, -1).all(axis=1)
            found.update(np.flatnonzero(~finite).tolist())
        else:
            found.update(at for at, row in enumerate(rows) if row is not None and not _is_finite(row))
    return frozenset(found)


def _is_finite(row: Output) -> bool:
    if isinstance(row, SparseVector):
        return bool(np.isfinite(row.values).all())
    if isinstance(row, Data):
        return all(math.isfinite(each.score) for each in row.pieces())
    if isinstance(row, Sequence):
        boxes = (side for each in row if isinstance(each, DetectedObject | Passage) for side in each.bbox or ())
        return all(map(math.isfinite, (*(each.score for each in row), *boxes)))
    return bool(np.isfinite(row).all())


def joined(rows: Sequence[Row], counts: Sequence[int]) -> Sequence[Row]:
    """One row for each item from those of its parts; `counts` says how many parts each item has.

    A dense vector is the mean of the parts', shorter than 1 where they differ; token vectors stand one behind the
    other, so that an item of several pages is as good as the best of them, token by token.
    """
    if all(count == 1 for count in counts):
        return rows
    left = iter(rows)
    return [_joined(list(islice(left, count))) for count in counts]


def _joined(parts: Sequence[Row]) -> Row:
    if len(parts) == 1:
        return parts[0]
    whole: dict[str, Output] = {}
    for kind in parts[0]:
        arrays = [np.asarray(part[kind]) for part in parts]
        whole[kind] = np.concatenate(arrays) if kind == "multivector" else np.mean(arrays, axis=0)
    return whole
