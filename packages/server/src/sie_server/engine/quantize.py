"""Model outputs in the dtype that a caller asked for, and the numbers that lead back. Pure.

`values * scale + offset` gives an int8 or uint8 vector back to within half a step (a missing offset is 0). Each vector
has a step of its own, so one large vector costs the others no precision.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import SparseVector, Vector

INT8_STEPS: Final = 127  # on either side of 0, so that x and -x are quantised alike
UINT8_STEPS: Final = 255


@dataclass(frozen=True, slots=True)
class Finished:
    """One output of one item, ready for the wire.

    Scale and offset are float32: numbers for one vector, [tokens, 1] for several. Packed bits are uint8 with an eighth
    of the components, the first of them in the highest bit.
    """

    dtype: str
    values: Array
    indices: Array | None = None
    scale: Array | None = None
    offset: Array | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes on the wire, about."""
        return self.values.nbytes + (0 if self.indices is None else self.indices.nbytes)


def finish(output: Vector, dtype: str) -> Finished:
    """An output in a dtype; weights of sparse vectors are never less than float16."""
    if isinstance(output, SparseVector):
        kind = "float16" if dtype == "float16" else "float32"
        return Finished(kind, cast(output.values, kind), output.indices)
    match dtype:
        case "int8":
            return _int8(output)
        case "uint8":
            return _uint8(output)
        case "binary" | "ubinary":
            return Finished(dtype, np.packbits(output > 0, axis=-1))
        case _:
            return Finished(dtype, cast(output, dtype))


def cast(vectors: Array, dtype: str) -> Array:
    """Vectors in a float dtype; what is too large for it becomes its largest number."""
    if vectors.dtype == dtype:
        return vectors
    largest = np.finfo(dtype).max
    return np.clip(vectors, -largest, largest).astype(dtype)


def _int8(vectors: Array) -> Finished:
    wide = vectors.astype(np.float64)
    scale = _step(np.abs(wide).max(axis=-1, keepdims=wide.ndim > 1), INT8_STEPS)
    steps = np.rint(wide / _divisor(scale))
    return Finished("int8", np.clip(steps, -INT8_STEPS, INT8_STEPS).astype(np.int8), scale=scale)


def _uint8(vectors: Array) -> Finished:
    wide = vectors.astype(np.float64)
    low = wide.min(axis=-1, keepdims=wide.ndim > 1)
    scale = _step(wide.max(axis=-1, keepdims=wide.ndim > 1) - low, UINT8_STEPS)
    steps = np.rint((wide - low) / _divisor(scale))
    values = np.clip(steps, 0, UINT8_STEPS).astype(np.uint8)
    return Finished("uint8", values, scale=scale, offset=np.asarray(low, dtype=np.float32))


def _step(span: Array, steps: int) -> Array:
    return np.asarray(span / steps, dtype=np.float32)


def _divisor(scale: Array) -> Array:
    """A vector of one repeated number has no steps; dividing by anything else gives the same zeros."""
    return np.where(scale == 0, 1.0, scale.astype(np.float64))
