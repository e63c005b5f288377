import numpy as np
import pytest

from sie_server.adapters.base import LoadError, UnsupportedInputError
from sie_server.adapters.shared.token_labels import Tag, Wanted, find_entities, grouped, read_tags, wanted_labels


def tags(*names: str) -> tuple[Tag, ...]:
    return read_tags({"id2label": {str(at): name for at, name in enumerate(names)}})


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        ("B-PER I-PER O B-PER", [("PER", 0, 2), ("PER", 3, 4)]),
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("I-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        ("PER PER O PER LOC", [("PER", 0, 2), ("PER", 3, 4), ("LOC", 4, 5)]),
        ("B-PER I-PER E-PER I-PER", [("PER", 0, 3), ("PER", 3, 4)]),
        ("S-PER S-PER O U-LOC L-LOC", [("PER", 0, 1), ("PER", 1, 2), ("LOC", 3, 5)]),
        ("B-GIVEN-NAME I-GIVEN-NAME", [("GIVEN-NAME", 0, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_neighbours_of_one_label_are_one_entity(names: str, runs: list[tuple[str, int, int]]) -> None:
    words = names.split()
    found = grouped(tags(*words)) if words else grouped([])
    assert [(kind, run.start, run.stop) for kind, run in found] == runs


ROWS = np.array([[0.2, 0.8, 0.0], [0.1, 0.0, 0.9], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]])
SPANS = np.array([[0, 2], [2, 4], [5, 7], [7, 9]])


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("first", [("aabb", "X", 0.8)]),
        ("average", [("aabb", "Y", 0.45), ("ccdd", "X", 0.55)]),
        ("max", [("aabb", "Y", 0.9), ("ccdd", "X", 0.7)]),
        ("simple", [("aa", "X", 0.8), ("bb", "Y", 0.9), ("dd", "X", 0.7)]),
    ],
)
def test_a_word_is_judged_by_the_strategy(strategy: str, expected: list[tuple[str, str, float]]) -> None:
    own = tags("O", "X", "Y")
    wanted = Wanted(wanted_labels(own, ()), 0.0, strategy)
    found = find_entities("aabb ccdd", SPANS, np.array([0, 0, 1, 1]), ROWS, own, wanted)
    assert [(each.text, each.label) for each in found] == [(text, label) for text, label, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, _, score in expected])


def test_a_score_is_the_mean_of_the_words_and_the_threshold_counts_itself() -> None:
    own = tags("O", "X")
    rows = np.array([[0.25, 0.75], [0.5 - 1e-9, 0.5 + 1e-9]])
    spans, words = np.array([[0, 2], [2, 4]]), np.array([0, 1])

    def found(threshold: float) -> list[float]:
        return [
            each.score
            for each in find_entities("abcd", spans, words, rows, own, Wanted({"X": "X"}, threshold, "first"))
        ]

    assert found(0.0) == found(0.625) == pytest.approx([0.625])
    assert found(0.626) == []


def test_spaces_at_the_ends_of_an_entity_are_not_part_of_it() -> None:
    own = tags("X", "O")
    spans = np.array([[0, 3], [3, 4]])
    [entity] = find_entities(
        "  é ", spans, np.array([0, 1]), np.array([[1.0, 0], [1.0, 0]]), own, Wanted({"X": "X"}, 0, "first")
    )
    assert (entity.text, entity.start, entity.end) == ("é", 2, 3)


def test_probabilities_that_are_no_numbers_are_not_told_as_nothing_found() -> None:
    rows = np.array([[1.0, 0.0], [np.nan, np.nan]])
    spans, words = np.array([[0, 2], [2, 4]]), np.array([0, 1])
    [entity] = find_entities("abcd", spans, words, rows, tags("O", "X"), Wanted({"X": "X"}, 0.5, "first"))
    assert np.isnan(entity.score)


def test_labels_are_found_in_any_spelling_and_told_in_the_callers() -> None:
    own = tags("O", "B-GIVEN_NAME", "I-GIVEN_NAME", "B-CITY")
    assert wanted_labels(own, ()) == {"GIVEN_NAME": "GIVEN_NAME", "CITY": "CITY"}
    assert wanted_labels(own, ("given name",)) == {"GIVEN_NAME": "given name"}
    assert wanted_labels(own, ("City", "CITY")) == {"CITY": "City"}
    with pytest.raises(UnsupportedInputError, match="'street'; its labels: CITY, GIVEN_NAME"):
        wanted_labels(own, ("city", "street"))


@pytest.mark.parametrize("config", [{}, {"id2label": {"1": "O"}}, {"id2label": {"x": "O"}}, {"id2label": 5}])
def test_a_configuration_without_labels_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(LoadError, match="id2label"):
        read_tags(config)
