from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, Pair, UnsupportedInputError, WeightsSource
from sie_server.adapters.cross_encoder import CrossEncoderAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import WORDS
from tiny_cross_encoder import POSITIONS, logits, predictions, write_reranker

LONG = " ".join(["the cat saw two dogs running ,"] * 9)
PAIRS = [
    Pair("the cat", "sat on a mat"),
    Pair("", ""),
    Pair("two dogs", ""),
    Pair("unheard-of words", "the cat saw the two dogs running far away ."),
    Pair("two dogs", LONG),
    Pair(LONG, "a mat"),
    Pair(LONG, LONG),
]
IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
OLD_KEY = "sbert_ce_default_activation_function"


def adapter(folder: Path, max_length: int | None = None) -> CrossEncoderAdapter:
    built = CrossEncoderAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}, max_length))
    built.load("cpu")
    return built


def scores(loaded: CrossEncoderAdapter, pairs: list[Pair]) -> Array:
    return loaded.run(loaded.prepare(pairs), threads=1)["score"]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("max_length", [None, 21, 20])
def test_raw_scores_equal_the_logits_of_transformers(tmp_path: Path, seed: int, max_length: int | None) -> None:
    folder = write_reranker(tmp_path / "model", seed=seed, sentence_transformers={"activation_fn": IDENTITY})
    expected = logits(folder, PAIRS, max_length or POSITIONS)
    assert np.ptp(expected) > 0.5  # or equality would say little
    np.testing.assert_allclose(scores(adapter(folder, max_length), PAIRS), expected, rtol=1e-5, atol=1e-5)


CONFIGS: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"sentence_transformers": {"activation_fn": IDENTITY}}, True),
    ({"sentence_transformers": {"version": "5.0.0"}}, False),
    ({"sentence_transformers": {"activation_fn": SIGMOID}, OLD_KEY: IDENTITY}, False),
    ({OLD_KEY: IDENTITY}, True),
    ({OLD_KEY: None}, False),
]


def test_scores_equal_those_of_sentence_transformers_whose_config_names_the_activation(tmp_path: Path) -> None:
    folders = [write_reranker(tmp_path / str(at), **config) for at, (config, _) in enumerate(CONFIGS)]
    raw = logits(folders[0], PAIRS)
    for folder, expected, (_, is_raw) in zip(folders, predictions(folders, PAIRS), CONFIGS, strict=True):
        found = scores(adapter(folder), PAIRS)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found, raw if is_raw else 1 / (1 + np.exp(-raw)), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoderAdapter:
    return adapter(write_reranker(tmp_path_factory.mktemp("tiny") / "model"))


TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


@given(st.lists(st.builds(Pair, TEXTS, TEXTS), min_size=1, max_size=6), st.randoms())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_score_does_not_depend_on_its_batch(loaded: CrossEncoderAdapter, pairs: list[Pair], random: Any) -> None:
    alone = np.concatenate([scores(loaded, [pair]) for pair in pairs])
    order = random.sample(range(len(pairs)), len(pairs))
    np.testing.assert_allclose(scores(loaded, [pairs[at] for at in order]), alone[order], rtol=1e-5, atol=1e-5)


def test_the_two_places_of_a_pair_are_not_the_same(loaded: CrossEncoderAdapter) -> None:
    one, other = scores(loaded, [Pair("cat", "dogs"), Pair("dogs", "cat")])
    assert abs(one - other) > 1e-3


def test_tokens_and_truncation_are_those_of_the_pair(loaded: CrossEncoderAdapter) -> None:
    short, long = loaded.prepare([Pair("the cat", "sat"), Pair("cat", LONG)])
    assert (short.tokens, short.truncated) == (6, False)
    assert (long.tokens, long.truncated) == (POSITIONS, True)
    assert long.payload[1].tolist() == [0] * 3 + [1] * (POSITIONS - 3)  # the longer text was cut, not the query


def test_a_single_text_is_refused(loaded: CrossEncoderAdapter) -> None:
    with pytest.raises(UnsupportedInputError, match="pairs"):
        loaded.prepare(["cat"])


@pytest.mark.parametrize(
    ("written", "error_class", "named"),
    [
        ({"labels": 3}, ErrorClass.DEPENDENCY, "3 labels"),
        ({"types": 1}, ErrorClass.DEPENDENCY, "two texts"),
        ({"sbert_ce_default_activation_function": "evil.module.Run"}, ErrorClass.DEPENDENCY, "evil.module.Run"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Softmax"}}, ErrorClass.DEPENDENCY, "identity, sigmoid"),
        ({"model_type": "mistral"}, ErrorClass.DEPENDENCY, "mistral"),
    ],
)
def test_a_model_that_is_no_bert_reranker_says_why(
    tmp_path: Path, written: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    folder = write_reranker(tmp_path / "model", **written)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class


def test_an_encoder_without_a_classifier_names_what_is_missing(tmp_path: Path) -> None:
    from tiny_bert import write_checkpoint  # noqa: PLC0415 - only here

    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(LoadError, match=r"'(classifier|pooler\.dense)\.\w+' is missing"):
        adapter(folder)
