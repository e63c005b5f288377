from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import (
    Classification,
    Labelled,
    LoadError,
    ModelSpec,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.nli import NliAdapter, read_verdicts
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import WORDS
from tiny_classifiers import FAMILIES, POSITIONS, change_config, max_length, pipeline_classes, write_classifier

NLI = ("contradiction", "neutral", "entailment")
TWO = ("entailment", "not_entailment")
LABELS = ("cat", "dogs", "the mat, on a cat", "away")
TEXT = "the cat sat on a mat and saw two dogs running far away."
LONG = " ".join([TEXT] * 12)
ABOUT = "This text is about {}."
TEMPLATE = "saw {}, {x}"


def adapter(folder: Path, max_length: int | None = None) -> NliAdapter:
    built = NliAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}, max_length))
    built.load("cpu")
    return built


def classify(
    loaded: NliAdapter, texts: list[str], labels: tuple[str, ...] = LABELS, **options: Any
) -> list[dict[str, float]]:
    found = loaded.run(loaded.prepare([Labelled(text, labels, options) for text in texts]), threads=1)
    return [{each.label: each.score for each in entry} for entry in found["classifications"]]  # type: ignore[union-attr]


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("labels", [NLI, TWO])
def test_scores_equal_those_of_the_zero_shot_pipeline_of_transformers(
    tmp_path: Path, labels: tuple[str, ...], multi: bool
) -> None:
    assert_same(write_classifier(tmp_path / "model", "bert", labels, of_tokens=False), "bert", multi_label=multi)


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "bert"])
def test_every_family_gives_the_scores_of_transformers(tmp_path: Path, family: str) -> None:
    assert_same(write_classifier(tmp_path / "model", family, TWO, of_tokens=False), family)


def assert_same(folder: Path, family: str, **options: Any) -> None:
    texts = [TEXT, LONG]
    expected = pipeline_classes(folder, family, texts, LABELS, hypothesis_template=ABOUT, **options)
    for found, wanted in zip(classify(adapter(folder, max_length(family)), texts, **options), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
        assert max(found.values()) - min(found.values()) > 1e-3  # or equality would say little
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_classifier_that_pools_the_mean_gives_its_scores_too(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "modernbert", TWO, of_tokens=False)
    first = classify(adapter(folder), [TEXT])
    mean = classify(adapter(change_config(folder, classifier_pooling="mean")), [TEXT])
    [expected] = pipeline_classes(folder, "modernbert", [TEXT], LABELS, hypothesis_template=ABOUT)
    assert mean[0] == pytest.approx(expected, abs=1e-5)
    assert mean != first


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> NliAdapter:
    return adapter(write_classifier(tmp_path_factory.mktemp("tiny") / "model", "bert", NLI, of_tokens=False))


TEXTS = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


@given(
    st.lists(TEXTS, min_size=1, max_size=5),
    st.lists(TEXTS.map(lambda text: text[:40]), min_size=1, max_size=6, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_scores_do_not_depend_on_company_and_those_of_one_label_sum_to_one(
    loaded: NliAdapter, texts: list[str], labels: list[str]
) -> None:
    together = classify(loaded, texts, tuple(labels))
    for text, found in zip(texts, together, strict=True):
        assert found == pytest.approx(classify(loaded, [text], tuple(labels))[0], abs=1e-5)
        if len(labels) > 1:
            assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_a_label_alone_and_several_labels_are_judged_each_for_itself(loaded: NliAdapter) -> None:
    [several] = classify(loaded, [TEXT], multi_label=True)
    for label in LABELS:
        assert classify(loaded, [TEXT], (label,))[0][label] == pytest.approx(several[label], abs=1e-5)


def test_a_template_has_one_slot_and_its_other_braces_are_characters(loaded: NliAdapter) -> None:
    [found] = classify(loaded, [TEXT], ("cat", "{}"), hypothesis_template=TEMPLATE)
    spelled = classify(loaded, [TEXT], ("saw cat, {x}", "saw {}, {x}"), hypothesis_template="{}")[0]
    assert list(found.values()) == pytest.approx(list(spelled.values()))


def test_tokens_are_those_of_all_pairs_and_truncation_is_told(loaded: NliAdapter) -> None:
    short, long = loaded.prepare(
        [Labelled("the cat", ("dogs", "two dogs"), {"hypothesis_template": "{}"}), Labelled(LONG, LABELS)]
    )
    assert (short.tokens, short.truncated) == ((2 + 1 + 3) + (2 + 2 + 3), False)
    assert (long.tokens, long.truncated) == (POSITIONS * len(LABELS), True)


def test_labels_below_the_threshold_are_left_out_and_ties_keep_their_order(loaded: NliAdapter) -> None:
    [every] = classify(loaded, [TEXT])
    limit = sorted(every.values())[2]
    [some] = classify(loaded, [TEXT], threshold=limit)
    assert some == {label: score for label, score in every.items() if score >= limit}
    same = loaded.run(loaded.prepare([Labelled(TEXT, ("zz", "yy", "xx"))]), threads=1)["classifications"][0]
    assert [each.label for each in same] == ["zz", "yy", "xx"]  # type: ignore[union-attr]  # all unknown words
    assert all(isinstance(each, Classification) for each in same)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("plain text", "extracts from texts"),
        (Labelled("a"), "labels to choose from"),
        (Labelled("a", (" ".join(["cat"] * 60),)), "leaves no room for a text"),
    ],
)
def test_what_cannot_be_read_says_why(loaded: NliAdapter, asked: Any, named: str) -> None:
    with pytest.raises(UnsupportedInputError, match=named):
        loaded.prepare([asked])


@pytest.mark.parametrize(
    ("labels", "verdicts"),
    [
        (NLI, (2, 0)),
        (TWO, (0, 1)),
        (("ENTAILMENT", "NEUTRAL", "CONTRADICTION"), (0, 2)),
        (("Entailment", "contradict", "neutral"), (0, 1)),
        (("not_entailment", "entailment"), (1, 0)),
    ],
)
def test_verdicts_are_found_in_any_spelling(labels: tuple[str, ...], verdicts: tuple[int, int]) -> None:
    assert read_verdicts({"id2label": {str(at): label for at, label in enumerate(labels)}}) == verdicts


@pytest.mark.parametrize(
    "named", [None, 5, {"x": "entailment"}, {"0": "LABEL_0", "1": "LABEL_1"}, {"0": "entailment", "1": "a", "2": "b"}]
)
def test_a_classifier_of_something_else_is_refused(named: Any) -> None:
    with pytest.raises(LoadError) as refused:
        read_verdicts({"id2label": named})
    assert refused.value.error_class is ErrorClass.UNKNOWN
