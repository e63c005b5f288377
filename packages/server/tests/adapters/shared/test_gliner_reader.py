import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import Labelled
from sie_server.adapters.shared.gliner_config import read_gliner_config
from sie_server.adapters.shared.gliner_reader import LABEL_SETS, WORD, Bounds, GlinerReader, layout_of
from sie_server.adapters.shared.weights import read_json
from tiny_gliner import BERT, LETTERS, MAX_WORDS, Variety, write_gliner

WINDOW, MAX_WIDTH = 60, 4


@pytest.fixture(scope="module", params=["deberta", "bert"])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GlinerReader:
    variety = Variety(encoder=BERT) if request.param == "bert" else Variety()
    folder = write_gliner(tmp_path_factory.mktemp("tiny") / "model", variety)
    layout = layout_of(read_gliner_config(read_json(folder / "gliner_config.json")))
    return GlinerReader(folder, layout, Bounds(WINDOW, 10**6))


TEXT = st.lists(st.text(LETTERS, min_size=1, max_size=9), max_size=150).map(" ".join)


@given(TEXT, st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=3).map(tuple))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_piece_of_a_text_lies_inside_one_window(reader: GlinerReader, text: str, labels: tuple[str, ...]) -> None:
    reading = reader.read([Labelled(text, labels)])[0]
    words = [match.span() for match in WORD.finditer(text)]
    assert [tuple(place) for place in reading.words.tolist()] == words
    spans = [(window.first_word, window.first_word + len(window.words)) for window in reading.windows]
    assert all(last - first <= MAX_WORDS for first, last in spans)
    assert all(len(window.ids) <= WINDOW for window in reading.windows)
    assert not reading.truncated
    width = MAX_WIDTH if all(last - first >= 2 * MAX_WIDTH for first, last in spans) else 1
    for first in range(len(words) - width + 1):
        assert any(start <= first and first + width <= end for start, end in spans)


def test_labels_are_read_in_the_callers_order(reader: GlinerReader) -> None:
    one, other = reader.read([Labelled("ada", ("b", "a")), Labelled("ada", ("a", "b"))])
    ids = one.windows[0].ids, other.windows[0].ids
    assert not np.array_equal(*ids)
    assert sorted(ids[0]) == sorted(ids[1])


def test_a_word_longer_than_a_window_is_cut_and_counted(reader: GlinerReader) -> None:
    reading = reader.read([Labelled("a " + "b" * 99 + " c", ("x",))])[0]
    assert reading.truncated
    assert [window.first_word for window in reading.windows] == [0, 1, 2]


def test_only_so_many_label_sets_are_kept(reader: GlinerReader) -> None:
    for number in range(LABEL_SETS + 5):
        reader.read([Labelled("ada", (f"label {number}",))])
    assert reader._prompt.cache_info().currsize == LABEL_SETS
