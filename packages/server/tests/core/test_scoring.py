import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.catalog import EmptyTask, EncodeTask, ExtractTask, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_CANDIDATES
from sie_server.core.options import Prompt
from sie_server.core.scoring import HYBRID_WEIGHTS, check_candidates, pieces, ranked, resolve_score

TEMPLATES = {"query_template": "q: {text}", "doc_template": "d: {text}"}
PROFILE = ProfileConfig("dense", adapter_options=TEMPLATES)
DENSE = ModelConfig("org/dense", Tasks(encode=EncodeTask(dense=VectorTask(2))), {"default": PROFILE})
PAIRS = ModelConfig("org/pairs", Tasks(score=EmptyTask()), {"default": ProfileConfig("cross_encoder")})
SPARSE = ModelConfig("org/sparse", Tasks(encode=EncodeTask(sparse=VectorTask(9))), {"default": PROFILE})
TOKENS = ModelConfig("org/tokens", Tasks(encode=EncodeTask(multivector=VectorTask(9))), {"default": PROFILE})
EXTRACT = ModelConfig("org/extract", Tasks(extract=ExtractTask()), {"default": PROFILE})
WORDS = ProfileConfig("bge_m3", adapter_options={"output_types": ["sparse"]})
ALL = ModelConfig(
    "org/all",
    Tasks(encode=EncodeTask(VectorTask(2), VectorTask(9), VectorTask(3))),
    {"default": ProfileConfig("bge_m3"), "sparse": WORDS},
)
TWO = ModelConfig("org/two", Tasks(encode=EncodeTask(VectorTask(2), VectorTask(9))), {"default": PROFILE})

FINITE = st.floats(-1e6, 1e6, width=32)


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
    ("model", "asked", "weights"),
    [
        (DENSE, {}, {"dense": 1}),
        (SPARSE, {}, {"sparse": 1}),
        (TOKENS, {}, {"multivector": 1}),
        (ALL, {}, {"dense": 1}),
        (ALL, {"profile": "sparse"}, {"sparse": 1}),
        (ALL, {"profile": "sparse", "score_mode": "dense"}, {"dense": 1}),
        (ALL, {"score_mode": "colbert"}, {"multivector": 1}),
        (ALL, {"score_mode": "hybrid"}, dict(zip(("dense", "sparse", "multivector"), HYBRID_WEIGHTS, strict=True))),
        (ALL, {"score_mode": "hybrid", "score_weights": [3, 0, 1]}, {"dense": 0.75, "multivector": 0.25}),
        (TWO, {"score_mode": "hybrid"}, {"dense": 2 / 3, "sparse": 1 / 3}),
        (PAIRS, {}, {}),
    ],
)
def test_what_is_compared_is_asked_for_or_the_first_that_the_model_has(
    model: ModelConfig, asked: dict[str, Any], weights: dict[str, float]
) -> None:
    found = resolve_score(model, None, asked)
    assert dict(found.weights) == pytest.approx(weights)
    assert found.is_hybrid == (asked.get("score_mode") == "hybrid")
    assert found.reads_pairs == (not weights)


def test_inputs_may_be_cut_unless_the_policy_is_error() -> None:
    policies = [{}, {"overflow_policy": "default"}, {"overflow_policy": "truncate_text"}, {"overflow_policy": "error"}]
    assert [resolve_score(DENSE, None, each).may_cut for each in policies] == [True, True, True, False]


@given(st.lists(st.integers(0, 30)), st.integers(1, 40))
def test_pieces_hold_everything_in_order_and_exceed_the_limit_only_alone(sizes: list[int], limit: int) -> None:
    cut = [sizes[each] for each in pieces(sizes, limit)]
    assert [size for piece in cut for size in piece] == sizes
    assert all(piece and (sum(piece) <= limit or len(piece) == 1) for piece in cut)
    assert all(sum(piece) + after[0] > limit for piece, after in pairwise(cut))  # no piece is shorter than it need be


@pytest.mark.parametrize(
    ("model", "asked", "named"),
    [
        (EXTRACT, {}, "no task 'score'; it has: extract"),
        (DENSE, {"score_mode": "sparse"}, "'sparse'; model 'org/dense' has: dense$"),
        (DENSE, {"score_mode": "hybrid"}, "'hybrid'; model 'org/dense' has: dense$"),
        (ALL, {"score_mode": 7}, "7; model 'org/all' has: dense, sparse, multivector, hybrid"),
        (PAIRS, {"score_mode": "dense"}, "reads pairs and has no modes"),
        (ALL, {"score_mode": "hybrid", "score_weights": [1, 2]}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": [1, 2, -1]}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": [1, 2, math.nan]}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": "1"}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": [10**400, 1, 1]}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": [1e308, 1e308, 1e308]}, "three numbers"),
        (ALL, {"score_mode": "hybrid", "score_weights": [True, True, True]}, "three numbers"),
        (TWO, {"score_mode": "hybrid", "score_weights": [0, 0, 1]}, "must count"),
        (DENSE, {"overflow_policy": "explode"}, "default, truncate_text, error"),
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
