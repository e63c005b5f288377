import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sie_cli.similarity import Match, closest_pairs, nearest, unit

vectors = arrays(np.float32, st.tuples(st.integers(2, 8), st.just(4)), elements=st.floats(-9, 9, width=32))


def test_the_same_direction_is_the_nearest_whatever_its_length() -> None:
    texts = np.array([[0, 1], [5, 5], [1, 0]], dtype=np.float32)
    best, second = nearest(np.array([[9, 0]], dtype=np.float32), texts, 2)[0]
    assert best == Match(0, 2, 1.0)
    assert second.right == 1
    assert second.cosine == pytest.approx(0.5**0.5)


def test_the_closest_pair_is_never_a_text_with_itself() -> None:
    texts = np.array([[1, 0], [0, 1], [1, 0.1]], dtype=np.float32)
    assert [(match.left, match.right) for match in closest_pairs(texts, 9)] == [(0, 2), (1, 2), (0, 1)]


@given(vectors)
def test_matches_come_closest_first_and_cosines_stay_in_range(texts: np.ndarray) -> None:
    for row in [*nearest(texts, texts, 5), closest_pairs(texts, 5)]:
        cosines = [match.cosine for match in row]
        assert cosines == sorted(cosines, reverse=True)
        assert all(-1.0001 <= cosine <= 1.0001 for cosine in cosines)


@given(vectors)
def test_unit_vectors_have_length_one_or_zero(texts: np.ndarray) -> None:
    lengths = np.linalg.norm(unit(texts), axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-4) | (lengths == 0))
