"""Fixed-dimensional encodings: the token vectors of a text as one vector. Pure; knows nothing of requests.

MUVERA (Dhulipala et al. 2024, arXiv:2405.19504). The dot product of a query's encoding with a document's is an estimate
of their late interaction (`core.similarity.max_sims`), so that an index of single vectors finds the candidates. A
repetition cuts the space with a few random planes; tokens on the same sides of all of them share a partition, and each
partition has a block of the encoding. Queries put the sum of their tokens there, documents the mean; where a document
has none, the mean of its tokens with the fewest planes between. So each token of a query meets, in its own partition,
tokens of the document that are probably like it. Repetitions are averaged: each side is divided by the root of their
number.

The random numbers are made here from the raw 64-bit integers of numpy's PCG64, whose sequence for a seed numpy promises
not to change; it makes no such promise for normal numbers. Vectors in an index outlive a worker, so they must not
change with a version of numpy. Every repetition has a stream of its own: more of them leave the others what they are.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from sie_protocol.arrays import Array
from sie_protocol.profiles import Muvera

# Numbers of projected tokens that exist at a time: 8 MiB of them, and as much for their places.
PROJECTED_AT_ONCE: Final = 1 << 20
ENCODERS_KEPT: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """The random parts of an encoding, which depend on nothing but its parameters.

    `planes` [width, repetitions * bits] and `projection` [width, repetitions * projection_dims], None: tokens stay what
    they are. `distances` [partitions, partitions]: between how many planes two partitions lie. `sketch`: for each
    component of the whole encoding the one of the final encoding that it is added to, and its sign.
    """

    muvera: Muvera
    planes: Array
    projection: Array | None
    distances: Array
    sketch: tuple[Array, Array] | None

    def encode(self, vectors: Array, *, is_query: bool) -> Array:
        """Token vectors [tokens, width] as one float32 vector [dims]; zeros for no tokens."""
        sums, counts = self._summed(np.asarray(vectors, np.float32))
        if not is_query and len(vectors):
            sums = np.stack([self._means(*own) for own in zip(sums, counts, strict=True)])
        whole: Array = sums.ravel() / math.sqrt(self.muvera.repetitions)
        if self.sketch is not None:
            places, signs = self.sketch
            whole = np.bincount(places, whole * signs, self.muvera.dims)
        return whole.astype(np.float32)

    def _summed(self, vectors: Array) -> tuple[Array, Array]:
        """For each partition the sum of its projected tokens [repetitions, partitions, projection_dims], and how many.

        In float64, so that the order of the tokens does not matter to any digit that is kept.
        """
        own = self.muvera
        blocks, size = own.repetitions * own.partitions, own.projection_dims
        sums: Array = np.zeros(blocks * size)
        counts: Array = np.zeros(blocks)
        at_once = max(1, PROJECTED_AT_ONCE // (own.repetitions * size))
        for start in range(0, len(vectors), at_once):
            some = vectors[start : start + at_once]
            cells = self._partitions(some) + own.partitions * np.arange(own.repetitions)
            places = cells[:, :, np.newaxis] * size + np.arange(size)
            counts += np.bincount(cells.ravel(), minlength=blocks)
            sums += np.bincount(places.ravel(), self._projected(some).ravel(), blocks * size)
        return sums.reshape(own.repetitions, own.partitions, size), counts.reshape(own.repetitions, own.partitions)

    def _partitions(self, vectors: Array) -> Array:
        """The partition of each token in each repetition: int64 [tokens, repetitions]."""
        bits = self.muvera.simhash_bits
        sides = (vectors @ self.planes > 0).reshape(len(vectors), self.muvera.repetitions, bits)
        numbers: Array = sides @ (1 << np.arange(bits))
        return numbers

    def _projected(self, vectors: Array) -> Array:
        """[tokens, repetitions, projection_dims]."""
        own = self.muvera
        if self.projection is None:
            return np.broadcast_to(vectors[:, np.newaxis], (len(vectors), own.repetitions, own.projection_dims))
        projected: Array = (vectors @ self.projection).reshape(len(vectors), own.repetitions, own.projection_dims)
        return projected

    def _means(self, sums: Array, counts: Array) -> Array:
        """For each partition of a repetition the mean of the tokens that are nearest to it: its own, if it has any.

        The paper takes any one of the nearest for a partition without tokens. Here it is the mean of all of them, so
        that the order of the tokens does not matter.
        """
        present = np.flatnonzero(counts)
        far = self.distances[:, present]
        nearest = (far == far.min(axis=1, keepdims=True)).astype(np.float64)
        means: Array = (nearest @ sums[present]) / (nearest @ counts[present])[:, np.newaxis]
        return means


@lru_cache(maxsize=ENCODERS_KEPT)  # as many as a catalogue may use at a time; one is made in milliseconds
def encoder_of(muvera: Muvera, width: int) -> Encoder:
    """The encoder for token vectors of so many components."""
    planes, projections = [], []
    for at in range(muvera.repetitions):
        stream = _stream(muvera.seed, 0, at)
        planes.append(_normals(stream, (width, muvera.simhash_bits)))
        projections.append(_signs(stream, (width, muvera.projection_dims)) / math.sqrt(muvera.projection_dims))
    numbers = np.arange(muvera.partitions)
    between = numbers[:, np.newaxis] ^ numbers
    distances = sum((between >> bit) & 1 for bit in range(muvera.simhash_bits))
    sketch = None
    if muvera.final_dims is not None:
        stream = _stream(muvera.seed, 1)
        places = (stream.random_raw(muvera.whole_dims) % np.uint64(muvera.final_dims)).astype(np.int64)
        sketch = places, _signs(stream, (muvera.whole_dims,))
    return Encoder(
        muvera,
        np.concatenate(planes, axis=1).astype(np.float32),
        None if muvera.projection_dims == width else np.concatenate(projections, axis=1).astype(np.float32),
        np.asarray(distances, np.uint8),
        sketch,
    )


def _stream(seed: int, *path: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path))


def _normals(stream: np.random.PCG64, shape: tuple[int, ...]) -> Array:
    """Normal numbers by the method of Box and Muller, from two uniform ones of 53 bits each; float64."""
    raw = stream.random_raw(2 * math.prod(shape)).reshape(2, *shape)
    uniform = ((raw >> np.uint64(11)) + 0.5) * 2.0**-53
    normals: Array = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])
    return normals


def _signs(stream: np.random.PCG64, shape: tuple[int, ...]) -> Array:
    """1 or -1, by the highest bit; float64."""
    signs: Array = 1.0 - 2.0 * (stream.random_raw(math.prod(shape)) >> np.uint64(63)).reshape(shape)
    return signs
