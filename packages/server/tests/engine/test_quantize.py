import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_protocol.arrays import Array
from sie_server.adapters.base import SparseVector
from sie_server.engine.quantize import Finished, finish

TINY = float(np.finfo(np.float32).tiny)  # below it float32 itself loses digits
VECTORS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=20),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
QUANTISED = pytest.mark.parametrize("dtype", ["int8", "uint8"])


def dequantised(found: Finished) -> Array:
    assert found.scale is not None
    wide: Array = found.values.astype(np.float64) * found.scale.astype(np.float64)
    return wide if found.offset is None else wide + found.offset


@QUANTISED
@given(VECTORS)
def test_a_dequantised_component_is_off_by_half_a_step_at_most(dtype: str, vectors: Array) -> None:
    found = finish(vectors, dtype)
    assert (found.dtype, str(found.values.dtype), found.values.shape) == (dtype, dtype, vectors.shape)
    assert found.scale is not None
    assert found.scale.shape == (() if vectors.ndim == 1 else (len(vectors), 1))
    allowed = 0.501 * found.scale.astype(np.float64) + 256 * TINY
    assert (np.abs(dequantised(found) - vectors) <= allowed).all()


@QUANTISED
@given(VECTORS.filter(lambda vectors: vectors.ndim == 2))
def test_each_vector_has_a_step_of_its_own(dtype: str, vectors: Array) -> None:
    together = finish(vectors, dtype)
    for row, vector in enumerate(vectors):
        alone = finish(vector, dtype)
        assert together.scale is not None
        assert alone.scale == together.scale[row]
        np.testing.assert_array_equal(alone.values, together.values[row])


@QUANTISED
@pytest.mark.parametrize("number", [0.0, 3.5, -7.25])
def test_a_vector_of_one_repeated_number_comes_back_exactly(dtype: str, number: float) -> None:
    np.testing.assert_allclose(dequantised(finish(np.full(5, number, np.float32), dtype)), number, rtol=1e-7)


@given(VECTORS)
def test_int8_treats_both_signs_alike_and_uses_its_whole_range(vectors: Array) -> None:
    values = finish(vectors, "int8").values.astype(int)
    np.testing.assert_array_equal(finish(-vectors, "int8").values, -values)
    large = np.abs(vectors).max(axis=-1) > 128 * TINY
    assert (np.abs(values).max(axis=-1)[large] == 127).all()


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
@given(VECTORS)
def test_bits_are_the_signs_first_component_highest(dtype: str, vectors: Array) -> None:
    found = finish(vectors, dtype)
    dims = vectors.shape[-1]
    assert (found.dtype, str(found.values.dtype), found.values.shape[-1]) == (dtype, "uint8", -(-dims // 8))
    for component in range(dims):
        bit = found.values[..., component // 8] >> (7 - component % 8) & 1
        np.testing.assert_array_equal(bit, vectors[..., component] > 0)


@given(VECTORS)
def test_half_precision_rounds_and_never_overflows(vectors: Array) -> None:
    found = finish(vectors, "float16")
    assert found.values.dtype == np.float16
    assert np.isfinite(found.values).all()
    np.testing.assert_allclose(found.values, np.clip(vectors, -65504, 65504), rtol=2**-11, atol=2**-24)


def test_float32_is_passed_on_as_it_is() -> None:
    vector = np.ones(3, np.float32)
    assert finish(vector, "float32").values is vector


@pytest.mark.parametrize(
    ("asked", "given"),
    [("float32", "float32"), ("float16", "float16"), ("int8", "float32"), ("uint8", "float32"), ("binary", "float32")],
)
def test_weights_of_sparse_vectors_stay_floats_and_say_so(asked: str, given: str) -> None:
    row = SparseVector(np.array([2, 9], np.int32), np.array([0.5, 2.0], np.float32))
    found = finish(row, asked)
    assert (found.dtype, str(found.values.dtype), found.values.tolist()) == (given, given, [0.5, 2.0])
    assert found.indices is row.indices
    assert found.scale is None
