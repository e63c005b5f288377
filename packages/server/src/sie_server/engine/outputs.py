"""Checks what an adapter gave before anybody gets it."""

import math
from collections.abc import Sequence

import numpy as np

from sie_server.adapters.base import DetectedObject, Output, Outputs, SparseVector


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
    if isinstance(row, Sequence):
        boxes = (side for each in row if isinstance(each, DetectedObject) for side in each.bbox)
        return all(map(math.isfinite, (*(each.score for each in row), *boxes)))
    return bool(np.isfinite(row).all())
