"""Fixed-dimensional encodings in the place of dense vectors, for profiles that declare them. Work for the CPU pool."""

from collections.abc import Sequence

import numpy as np

from sie_protocol.profiles import Muvera
from sie_server.core.muvera import encoder_of
from sie_server.engine.loop import Row


def with_muvera(rows: Sequence[Row], muvera: Muvera | None, *, is_query: bool) -> Sequence[Row]:
    """The rows, each with the encoding of its token vectors as `dense`; unchanged without `muvera`."""
    if muvera is None:
        return rows
    found: list[Row] = []
    for row in rows:
        vectors = np.asarray(row["multivector"])
        found.append({**row, "dense": encoder_of(muvera, vectors.shape[1]).encode(vectors, is_query=is_query)})
    return found
