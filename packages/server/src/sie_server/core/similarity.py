"""How alike a query and documents are, by the vectors of either kind. Pure; knows nothing of requests."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from sie_protocol.arrays import Array

SIMILARITIES: Final = ("cosine", "dot")
SMALLEST_NORM: Final = 1e-12
# Products of token vectors that exist at a time, 4 bytes each: 16 MiB, whatever the lengths of query and document.
PRODUCTS_AT_ONCE: Final = 4 * 1024 * 1024
Words = tuple[Array, Array]  # a sparse vector: indices, ascending, and weights


def compare(query: Array, documents: Sequence[Array], similarity: str) -> Array:
    """The similarity of a vector to each of the others, all of shape [dims]; a vector of zeros is like no other.

    Returns float64 [documents].
    """
    left, right = np.asarray(query, np.float64), np.stack(documents).astype(np.float64)
    if similarity == "cosine":
        left = left / max(float(np.linalg.norm(left)), SMALLEST_NORM)
        right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), SMALLEST_NORM)
    scores: Array = right @ left
    return scores


def sparse_products(query: Words, documents: Sequence[Words]) -> Array:
    """The dot product of a sparse vector with each of the others: float64 [documents]."""
    indices, weights = query
    others = np.concatenate([each for each, _ in documents])
    size = 1 + max(int(indices.max(initial=0)), int(others.max(initial=0)))
    lookup = np.zeros(size, np.float64)
    lookup[indices] = weights
    products = lookup[others] * np.concatenate([each for _, each in documents])
    owners = np.repeat(np.arange(len(documents)), [len(each) for each, _ in documents])
    scores: Array = np.bincount(owners, products, minlength=len(documents))
    return scores


def max_sims(query: Array, documents: Sequence[Array]) -> Array:
    """For each document, the sum over the query's tokens of the best product with any of its own.

    The late interaction of ColBERT (Khattab and Zaharia 2020). `query` is [tokens, dims], each document [its tokens,
    dims]; one without tokens scores 0. Returns float64 [documents].
    """
    rows = max(1, PRODUCTS_AT_ONCE // max(1, len(query)))
    return np.array([_max_sim(query, each, rows) for each in documents], np.float64)


def _max_sim(query: Array, document: Array, rows: int) -> float:
    if not len(document):
        return 0.0
    best = np.full(len(query), -np.inf, np.float32)
    for start in range(0, len(document), rows):
        np.maximum(best, (document[start : start + rows] @ query.T).max(axis=0), out=best)
    return float(best.sum(dtype=np.float64))
