import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_protocol.arrays import Array
from sie_server.core import similarity
from sie_server.core.similarity import compare, max_sims, sparse_products

VECTORS = hnp.arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32))


def tokens(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


TOKENS = st.builds(tokens, st.integers(1, 9), st.integers(0, 2**31))
DOCUMENTS = st.lists(TOKENS, min_size=1, max_size=6)
SPARSE = hnp.arrays(np.float32, 12, elements=st.sampled_from([0, 0, 0.5, 1, 2.25]))


@given(VECTORS, st.floats(0.5, 50))
def test_cosine_is_blind_to_length_and_between_minus_one_and_one(vectors: Array, factor: float) -> None:
    query, documents = vectors[0], list(vectors[1:])
    found = compare(query, documents, "cosine")
    assert all(abs(score) <= 1 + 1e-9 for score in found)
    if np.linalg.norm(vectors, axis=1).min() > 1e-3:
        scaled = compare(query * factor, [each * factor for each in documents], "cosine")
        np.testing.assert_allclose(found, scaled, atol=1e-5)


@given(VECTORS)
def test_dot_is_the_dot_product(vectors: Array) -> None:
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(compare(vectors[0], list(vectors[1:]), "dot"), wide[1:] @ wide[0], atol=1e-6)


def test_a_vector_of_zeros_is_like_no_other() -> None:
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert compare(zeros, [ones, zeros], "cosine").tolist() == [0.0, 0.0]


def words(vector: Array) -> tuple[Array, Array]:
    (indices,) = np.nonzero(vector)
    return indices.astype(np.int32), vector[indices]


@given(SPARSE, st.lists(SPARSE, min_size=1, max_size=6))
def test_the_product_of_sparse_vectors_is_that_of_the_whole_ones(query: Array, documents: list[Array]) -> None:
    found = sparse_products(words(query), [words(each) for each in documents])
    np.testing.assert_allclose(found, np.stack(documents).astype(np.float64) @ query, atol=1e-6)


@given(TOKENS, DOCUMENTS)
def test_late_interaction_sums_the_best_product_of_each_token_of_the_query(
    query: Array, documents: list[Array]
) -> None:
    expected = [sum(max(float(one @ other) for other in document) for one in query) for document in documents]
    np.testing.assert_allclose(max_sims(query, documents), expected, rtol=1e-4, atol=1e-4)


@given(TOKENS, DOCUMENTS, st.randoms(use_true_random=False))
def test_the_order_of_tokens_does_not_matter_and_that_of_documents_carries_over(
    query: Array, documents: list[Array], random: np.random.RandomState
) -> None:
    found = max_sims(query, documents)
    order = list(range(len(documents)))
    random.shuffle(order)
    turned = [documents[at][::-1] for at in order]
    np.testing.assert_allclose(max_sims(query[::-1], turned), found[order], rtol=1e-5, atol=1e-5)


@given(TOKENS, DOCUMENTS)
def test_no_document_of_unit_vectors_is_liker_than_the_query_itself(query: Array, documents: list[Array]) -> None:
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, *documents)]
    found = max_sims(unit[0], unit)
    assert abs(found[0] - len(query)) < 1e-4
    assert found.max() <= found[0] + 1e-4


def test_long_texts_are_compared_in_blocks_with_the_same_result() -> None:
    random = np.random.default_rng(0)
    query, document = (random.standard_normal((count, 8), np.float32) for count in (3000, 5000))
    assert len(query) * len(document) > 2 * similarity.PRODUCTS_AT_ONCE
    expected = (document @ query.T).max(axis=0).sum()
    np.testing.assert_allclose(max_sims(query, [document, document[:0]]), [expected, 0.0], rtol=1e-5)
