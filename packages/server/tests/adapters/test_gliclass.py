"""GLiClass models score labels as the package `gliclass` does, and never lose one to a long text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import (
    Classification,
    Labelled,
    LoadError,
    ModelSpec,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.gliclass import GliclassAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_families import LETTERS
from tiny_gliclass import MODERNBERT, Variety, gliclass_oracle, write_gliclass

LABELS = ("travel", "a sport with a ball", "x")
TEXTS = ["one day i will see the world", "a", "", "two dogs: running, far away. " * 9]
TINY = {
    "labels first": Variety({"prompt_first": True}, seed=1),
    "text first": Variety(seed=2),
    "means, normalised": Variety(
        {"prompt_first": True, "pooling_strategy": "avg", "normalize_features": True},
        seed=3,
    ),
    "of the text only, labels by average": Variety(
        {
            "prompt_first": True,
            "extract_text_features": True,
            "pooling_strategy": "avg",
            "class_token_pooling": "average",
            "embed_class_token": False,
            "scorer_type": "mlp",
        },
        seed=4,
    ),
    "labels by average, with the whole text behind": Variety(
        {"prompt_first": True, "class_token_pooling": "average", "scorer_type": "weighted-dot"}, seed=5
    ),
    "modernbert, label told by its first token": Variety(
        {"embed_class_token": False, "scorer_type": "weighted-dot", "projector_hidden_act": "relu"}, MODERNBERT, seed=6
    ),
}


def adapter(folder: Path, max_length: int | None = None) -> GliclassAdapter:
    made = GliclassAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}, max_length))
    made.load("cpu")
    return made


def ask(loaded: GliclassAdapter, asked: list[Labelled]) -> list[tuple[Classification, ...]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["classifications"]
    return list(found)


def by_label(found: tuple[Classification, ...]) -> dict[str, float]:
    return {each.label: each.score for each in found}


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_scores_equal_those_of_gliclass(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliclass(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), gliclass_oracle(folder)
    differences = []
    for labels in (LABELS, LABELS[::-1], LABELS[:1]):
        for multi_label in (False, True):
            found = ask(loaded, [Labelled(text, labels, {"multi_label": multi_label}) for text in TEXTS])
            for ours, theirs in zip(found, oracle(TEXTS, labels, multi_label=multi_label), strict=True):
                assert by_label(ours) == pytest.approx(theirs, abs=1e-5)
                assert [each.score for each in ours] == sorted((each.score for each in ours), reverse=True)
                differences.append(max(theirs.values()) - min(theirs.values()))
    assert max(differences) > 0.02  # or equality would say little


@pytest.fixture(scope="module", params=["labels first", "text first"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GliclassAdapter:
    return adapter(write_gliclass(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]), 60)


WORDS = st.text(LETTERS, max_size=90)


@given(st.lists(st.tuples(WORDS, st.lists(st.sampled_from(LABELS), min_size=1, unique=True)), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_score_depends_on_the_batch_and_no_label_is_lost(
    loaded: GliclassAdapter, asked: list[tuple[str, list[str]]]
) -> None:
    texts = [Labelled(text, tuple(labels)) for text, labels in asked]
    assert all(each.tokens <= 60 for each in loaded.prepare(texts))
    for text, found in zip(texts, ask(loaded, texts), strict=True):
        assert set(by_label(found)) == set(text.labels)
        assert by_label(found) == pytest.approx(by_label(ask(loaded, [text])[0]), abs=1e-5)


def test_a_long_text_loses_its_end(loaded: GliclassAdapter) -> None:
    room = 60 - loaded.prepare([Labelled("", LABELS)])[0].tokens
    fits, cut = loaded.prepare([Labelled("a" * room, LABELS), Labelled("a" * room + "bcd", LABELS)])
    assert (fits.truncated, cut.truncated) == (False, True)
    assert fits.payload.ids.tolist() == cut.payload.ids.tolist()
    assert fits.payload.places.tolist() == cut.payload.places.tolist()


def test_markers_in_a_text_are_no_labels(loaded: GliclassAdapter) -> None:
    (found,) = ask(loaded, [Labelled("one <<LABEL>>two", LABELS)])
    assert set(by_label(found)) == set(LABELS)


def test_options_choose_among_scores(loaded: GliclassAdapter) -> None:
    (every,) = ask(loaded, [Labelled("a text", LABELS)])
    assert sum(each.score for each in every) == pytest.approx(1)
    (best,) = ask(loaded, [Labelled("a text", LABELS, {"threshold": every[0].score})])
    assert best == every[:1]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ((), "needs labels"),
        (("a label",) * 20, "20 labels leave no room for a text in 60 tokens"),
        (("a", "b<<SEP>>c"), "'b<<SEP>>c' holds <<LABEL>> or <<SEP>>"),
    ],
)
def test_what_cannot_be_asked_is_refused(loaded: GliclassAdapter, labels: tuple[str, ...], named: str) -> None:
    with pytest.raises(UnsupportedInputError, match=named):
        loaded.prepare([Labelled("a text", labels)])


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        ({"architecture_type": "bi-encoder"}, ErrorClass.DEPENDENCY, "architecture_type 'bi-encoder'"),
        ({"scorer_type": "hopfield"}, ErrorClass.DEPENDENCY, "scorer_type 'hopfield'"),
        ({"use_lstm": True}, ErrorClass.DEPENDENCY, "use_lstm True"),
        ({"encoder_config": None}, ErrorClass.UNKNOWN, "encoder_config"),
        ({"class_token_index": None}, ErrorClass.UNKNOWN, "not that of a GLiClass"),
        ({"scorer_type": "mlp"}, ErrorClass.UNKNOWN, r"'scorer\.mlp\.0\.weight' is missing"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, damage: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    folder = write_gliclass(tmp_path / "model", TINY["text first"])
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class
