from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.adapters.hash import HashAdapter


def outputs(*texts: str, max_words: int = 4, **dims: int) -> dict[str, Any]:
    adapter = HashAdapter(ModelSpec("sie/hash", WeightsSource(), dims, {}, max_words))
    adapter.load("cpu")
    assert adapter.capabilities.outputs == set(dims)
    return dict(adapter.run(adapter.prepare(texts), threads=1))


def encode(*texts: str) -> Array:
    return np.stack(outputs(*texts, dense=24)["dense"])


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_vectors_are_unit_and_depend_on_their_text_alone(texts: list[str]) -> None:
    together = encode(*texts)
    assert together.shape == (len(texts), 24)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(together, np.concatenate([encode(text) for text in texts]))


def test_the_vector_of_a_text_never_changes() -> None:
    np.testing.assert_allclose(encode("hello")[0, :3], [-0.1188103258, -0.0378446802, 0.0005598897], atol=1e-7)


def test_words_beyond_the_limit_do_not_count() -> None:
    np.testing.assert_array_equal(encode("a b c d e f"), encode("a b c d"))
    adapter = HashAdapter(ModelSpec("sie/hash", WeightsSource(), {"dense": 2}, {}, 4))
    assert [(each.tokens, each.truncated) for each in adapter.prepare(["a b c d e", "a b", ""])] == [
        (4, True),
        (2, False),
        (1, False),
    ]


def test_sparse_counts_words_and_multivector_has_one_vector_for_each() -> None:
    found = outputs("b a b", "", sparse=30522, multivector=6)
    full, empty = found["sparse"]
    assert sorted(full.values) == [1, 2]
    assert (np.diff(full.indices) > 0).all()
    assert (full.indices.dtype, full.values.dtype, len(empty.indices)) == (np.int32, np.float32, 0)
    words, nothing = found["multivector"]
    assert (words.shape, nothing.shape) == ((3, 6), (1, 6))
    np.testing.assert_array_equal(words[0], words[2])
    np.testing.assert_array_equal(words[1], outputs("a", dense=6)["dense"][0])
