import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.adapters.hash import HashAdapter


def encode(*texts: str, max_words: int = 4) -> Array:
    adapter = HashAdapter(ModelSpec("sie/hash", WeightsSource(), {"dense": 24}, {}, max_words))
    adapter.load("cpu")
    return adapter.run(adapter.prepare(texts), threads=1)["dense"]


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
