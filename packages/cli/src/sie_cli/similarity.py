"""Who is close to whom among vectors: cosine similarity, nothing else."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]  # [n, dims]


@dataclass(frozen=True, slots=True)
class Match:
    """Two texts by index, and the cosine of their vectors."""

    left: int
    right: int
    cosine: float


def unit(vectors: Vectors) -> Vectors:
    """The same directions with length 1, in double precision; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths == 0, 1, lengths))


def nearest(queries: Vectors, texts: Vectors, count: int) -> list[list[Match]]:
    """For each query, the `count` closest texts, closest first; `left` is the query, `right` the text."""
    cosines = unit(queries) @ unit(texts).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [[Match(q, int(t), float(cosines[q, t])) for t in row] for q, row in enumerate(order)]


def closest_pairs(texts: Vectors, count: int) -> list[Match]:
    """The `count` most similar pairs of different texts, `left` before `right`."""
    cosines = unit(texts) @ unit(texts).T
    rows, columns = np.triu_indices(len(texts), k=1)
    order = np.argsort(-cosines[rows, columns], kind="stable")[:count]
    return [Match(int(rows[k]), int(columns[k]), float(cosines[rows[k], columns[k]])) for k in order]
