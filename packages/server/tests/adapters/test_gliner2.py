"""GLiNER2 models find what the package `gliner2` finds, in texts of any length."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gliner2.processing.word_splitter import WhitespaceTokenSplitter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import (
    Classification,
    Entity,
    Labelled,
    LoadError,
    ModelSpec,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.gliner2 import Gliner2Adapter
from sie_server.adapters.shared.gliner2_reader import WORD
from sie_server.core.lifecycle import ErrorClass
from tiny_gliner import LETTERS
from tiny_gliner2 import BERT, MAX_WORDS, Oracle, Variety, write_gliner2

LABELS = ("person", "Place of birth", "x")
TEXTS = [
    "ada met bob in a small town.",
    "Ada Met Bob in a Small Town",
    "one, two; three-four five_six seven. eight!",
    "the cat sat on a mat and saw two dogs running far away, then it ran.",
    "see https://example.com/a?b=c or write to ada.l@example.org, @bob",
    "zoë und José aßen 東京 🍣 in der Straße e\N{COMBINING ACUTE ACCENT}s?",
]
TINY = {
    "plain": Variety(seed=1),
    "attentive": Variety({"counting_layer": "count_lstm_v2"}, seed=2),
    "attentive, bert": Variety({"counting_layer": "count_lstm_v2", "max_width": 3}, BERT, seed=3),
}
ENTITIES: list[tuple[tuple[str, ...], float]] = [(LABELS, 0.5), (LABELS[::-1], 0.3), (LABELS[:1], 0.1)]
CLASSIFY: dict[str, Any] = {"findings": "classifications"}


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> Gliner2Adapter:
    made = Gliner2Adapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options, max_length))
    made.load("cpu")
    return made


def ask(loaded: Gliner2Adapter, asked: list[Labelled]) -> list[tuple[Entity, ...]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["entities"]
    return list(found)


def classify(loaded: Gliner2Adapter, asked: list[Labelled]) -> list[tuple[Classification, ...]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["classifications"]
    return list(found)


def places(entities: tuple[Entity, ...]) -> list[tuple[str, str, int, int]]:
    return sorted((e.text, e.label, e.start, e.end) for e in entities)


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_entities_equal_those_of_gliner2(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliner2(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), Oracle(folder)
    total = 0
    for labels, threshold in ENTITIES:
        found = ask(loaded, [Labelled(text, labels, {"threshold": threshold}) for text in TEXTS])
        for text, ours in zip(TEXTS, found, strict=True):
            # The package ends a text with a full stop of its own, and may tell of it.
            theirs = {
                (label, start, min(end, len(text))): score
                for _, label, score, start, end in oracle.entities(text, labels, threshold)
                if start < len(text)
            }
            assert {(e.label, e.start, e.end): e.score for e in ours} == pytest.approx(theirs, abs=1e-5)
            assert all(e.text == text[e.start : e.end] for e in ours)
            assert [e.start for e in ours] == sorted(e.start for e in ours)
            total += len(ours)
    assert total > 60  # or equality would say little


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_classes_equal_those_of_gliner2(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliner2(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), Oracle(folder)
    differences = []
    for labels in (LABELS, LABELS[::-1], LABELS[:1]):
        for multi_label in (False, True):
            options = {**CLASSIFY, "multi_label": multi_label, "task": "topic of it"}
            texts = ["", *TEXTS]
            for text, ours in zip(
                texts, classify(loaded, [Labelled(each, labels, options) for each in texts]), strict=True
            ):
                theirs = oracle.classes(text, labels, "topic of it", multi_label=multi_label)
                assert {each.label: each.score for each in ours} == pytest.approx(theirs, abs=1e-5)
                assert [each.score for each in ours] == sorted((each.score for each in ours), reverse=True)
                differences.append(max(theirs.values()) - min(theirs.values()))
    assert max(differences) > 0.02  # or equality would say little


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=200)
def test_words_are_those_of_gliner2(text: str) -> None:
    assert [match.span() for match in WORD.finditer(text)] == [each[1:] for each in WhitespaceTokenSplitter()(text)]


@pytest.mark.parametrize("piece", ["a.", "a@a.", "a-", "@a"])
def test_words_are_found_in_time_that_grows_with_the_text(piece: str) -> None:
    text = piece * 100_000
    found = [match.span() for match in WORD.finditer(text)]
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    assert all(one[1] == other[0] for one, other in pairwise(found))


@pytest.fixture(scope="module", params=["plain", "attentive, bert"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gliner2Adapter:
    return adapter(write_gliner2(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]))


QUESTIONS = st.builds(
    Labelled,
    st.lists(st.text(LETTERS + "É東\x07🍣.", max_size=6), max_size=30).map(" ".join),
    st.permutations(LABELS).flatmap(lambda labels: st.integers(1, 3).map(lambda count: tuple(labels[:count]))),
    st.fixed_dictionaries(
        {"threshold": st.sampled_from([0.3, 0.6]), "findings": st.sampled_from(["entities", "classifications"])}
    ),
)


@given(st.lists(QUESTIONS, min_size=1, max_size=5), st.randoms())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_in_a_text_does_not_depend_on_its_batch(
    loaded: Gliner2Adapter, asked: list[Labelled], random: Any
) -> None:
    order = random.sample(range(len(asked)), len(asked))
    batch = loaded.prepare([asked[at] for at in order])
    together: Any = loaded.run(batch, threads=1)
    for row, place in enumerate(order):
        question = asked[place]
        alone: Any = loaded.run(loaded.prepare([question]), threads=1)
        kind, other = "entities", "classifications"
        if question.options["findings"] == other:
            kind, other = other, kind
        assert together[other][row] is None
        found, expected = together[kind][row], alone[kind][0]
        assert [each.label for each in found] == [each.label for each in expected]
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)


def test_nothing_of_a_long_text_is_lost(loaded: Gliner2Adapter) -> None:
    text = " ".join(LETTERS[at % 26] * (1 + at % 4) for at in range(5 * MAX_WORDS))
    question = Labelled(text, LABELS[:1], {"threshold": 0.01})
    (prepared,) = loaded.prepare([question])
    assert not prepared.truncated
    assert len(prepared.payload.reading.windows) > 4
    (found,) = ask(loaded, [question])
    assert max(entity.end for entity in found) > 0.9 * len(text)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_what_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    loaded = adapter(write_gliner2(tmp_path / "model", TINY["attentive, bert"]), 150)
    text = "ada met bob " * 60
    short, cut, classified = loaded.prepare(
        [Labelled("ada", LABELS), Labelled(text, LABELS), Labelled(text, LABELS, CLASSIFY)]
    )
    assert (short.truncated, cut.truncated, classified.truncated) == (False, True, True)
    assert cut.tokens <= 150
    assert len(classified.payload.reading.windows) == 1
    assert len(classify(loaded, [Labelled(text, LABELS, CLASSIFY)])[0]) == len(LABELS)


def test_a_model_that_expects_no_entities_finds_none(tmp_path: Path) -> None:
    folder = write_gliner2(tmp_path / "model", Variety(seed=1, instances=False))
    assert Oracle(folder).entities(TEXTS[0], LABELS, 0.0) == []
    assert ask(adapter(folder), [Labelled(TEXTS[0], LABELS, {"threshold": 0.0})]) == [()]


def test_options_of_the_model_are_the_defaults_of_its_requests(tmp_path: Path) -> None:
    folder = write_gliner2(tmp_path / "model", TINY["plain"])
    strict = adapter(folder, threshold=1.0, **CLASSIFY)
    assert classify(strict, [Labelled(TEXTS[0], LABELS)]) == [()]
    (every,) = classify(adapter(folder, **CLASSIFY), [Labelled(TEXTS[0], LABELS)])
    assert sum(each.score for each in every) == pytest.approx(1)
    asked = Labelled(TEXTS[0], LABELS, {"findings": "entities", "threshold": 0.1})
    assert ask(strict, [asked]) == ask(adapter(folder), [asked]) != [()]


@pytest.mark.parametrize(
    ("labels", "options", "named"),
    [
        ((), {}, "at least one label"),
        (("a", "b[E]c"), {}, r"'b\[E\]c' holds \[E\]"),
        (("a",), {**CLASSIFY, "task": "of [P]"}, r"'of \[P\]' holds \[P\]"),
        (("label",) * 200, {}, "the 200 labels take .* reads 128 at once"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, labels: tuple[str, ...], options: dict[str, Any], named: str
) -> None:
    loaded = adapter(write_gliner2(tmp_path / "model", TINY["attentive, bert"]))
    with pytest.raises(UnsupportedInputError, match=named):
        loaded.prepare([Labelled("a text", labels, options)])


@pytest.mark.parametrize(
    ("damage", "error_class", "message"),
    [
        ({"architecture": "boundary"}, ErrorClass.DEPENDENCY, "architecture 'boundary'"),
        ({"token_pooling": "mean"}, ErrorClass.DEPENDENCY, "token_pooling 'mean'"),
        ({"counting_layer": "count_lstm_moe"}, ErrorClass.DEPENDENCY, "counting_layer 'count_lstm_moe'"),
        ({"max_width": None, "span_head": None}, ErrorClass.UNKNOWN, "not that of a GLiNER2"),
        ({"counting_layer": "count_lstm_v2"}, ErrorClass.UNKNOWN, r"'count_embed\.transformer\..* is missing"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, damage: dict[str, Any], error_class: ErrorClass, message: str
) -> None:
    folder = write_gliner2(tmp_path / "model", TINY["plain"])
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=message) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class
