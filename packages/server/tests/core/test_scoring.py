import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_protocol.arrays import Array
from sie_protocol.catalog import EmptyTask, EncodeTask, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_CANDIDATES
from sie_server.core.options import Prompt
from sie_server.core.scoring import check_candidates, compare, ranked, resolve_score

TEMPLATES = {"query_template": "q: {text}", "doc_template": "d: {text}"}
PROFILE = ProfileConfig("dense", adapter_options=TEMPLATES)
DENSE = ModelConfig("org/dense", Tasks(encode=EncodeTask(dense=VectorTask(2))), {"default": PROFILE})
PAIRS = ModelConfig("org/pairs", Tasks(score=EmptyTask()), {"default": ProfileConfig("cross_encoder")})
SPARSE = ModelConfig("org/sparse", Tasks(encode=EncodeTask(sparse=VectorTask(9))), {"default": PROFILE})

FINITE = st.floats(-1e6, 1e6, width=32)
VECTORS = hnp.arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32))


@given(st.lists(FINITE, min_size=1))
def test_ranks_are_a_permutation_from_the_highest_to_the_lowest_and_ties_keep_their_order(scores: list[float]) -> None:
    order = ranked(scores)
    assert sorted(order) == list(range(len(scores)))
    for one, other in pairwise(order):
        assert scores[one] > scores[other] or (scores[one] == scores[other] and one < other)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_has_no_rank(wrong: float) -> None:
    with pytest.raises(Problem, match="item 1") as refused:
        ranked([0.0, wrong, 1.0])
    assert refused.value.code is ErrorCode.INFERENCE_ERROR


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
    assert compare(zeros, [ones, zeros], "cosine") == [0.0, 0.0]


def test_a_bi_encoder_gives_each_side_its_own_template_and_the_instruction_to_the_query_alone() -> None:
    options = resolve_score(DENSE, "find it", {})
    assert not options.reads_pairs
    assert options.query_prompt.apply("x") == "q: find it x"
    assert options.document_prompt.apply("x") == "d: x"
    assert options.similarity == "cosine"
    assert resolve_score(DENSE, None, {"similarity": "dot"}).similarity == "dot"


def test_a_model_that_reads_pairs_gets_the_instruction_in_front_of_the_query() -> None:
    options = resolve_score(PAIRS, "find it", {})
    assert options.reads_pairs
    assert (options.query_prompt.apply("x"), options.document_prompt) == ("find it x", Prompt())


@pytest.mark.parametrize(
    ("model", "asked", "named"),
    [
        (SPARSE, {}, "no task 'score'; it has: encode"),
        (DENSE, {"similarity": "euclid"}, "cosine, dot"),
        (DENSE, {"pooling": "cls"}, "pooling cannot be set per request"),
        (PAIRS, {"profile": "none"}, "no profile 'none'"),
    ],
)
def test_what_cannot_be_done_is_named(model: ModelConfig, asked: dict[str, str], named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        resolve_score(model, None, asked)
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_the_number_of_candidates_is_bounded() -> None:
    check_candidates(MAX_CANDIDATES)
    with pytest.raises(Problem) as too_many:
        check_candidates(MAX_CANDIDATES + 1)
    with pytest.raises(Problem) as none:
        check_candidates(0)
    assert (too_many.value.code, none.value.code) == (ErrorCode.INPUT_TOO_LONG, ErrorCode.INVALID_INPUT)
