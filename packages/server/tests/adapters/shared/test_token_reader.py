from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import Entity, Labelled, LoadError, UnsupportedInputError
from sie_server.adapters.shared.token_reader import TokenReader
from tiny_bert import WORDS
from tiny_classifiers import BIO, write_classifier

CONFIG = {"id2label": {str(at): label for at, label in enumerate(BIO)}}
WHOLE = 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("tiny") / "model", "bert", BIO, of_tokens=True)


def by_id(sequences: list[Array]) -> Sequence[Array]:
    """A classifier that judges each token by its id alone, wherever it stands."""
    table = np.random.default_rng(7).dirichlet(np.full(len(BIO), 0.3), 64)
    return [table[each] for each in sequences]


def found(reader: TokenReader, texts: list[Labelled], limit: int = 100) -> list[tuple[Entity, ...]]:
    return reader.entities(reader.prepare(texts), by_id, limit)


TEXTS = st.lists(st.sampled_from([*(word for word in WORDS if "#" not in word), "Élan", "😀"]), max_size=80).map(
    " ".join
)


@given(TEXTS, st.integers(6, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_find_what_one_look_at_the_whole_text_finds(
    folder: Path, text: str, length: int, data: st.DataObject
) -> None:
    reader = TokenReader(folder, CONFIG, length)
    stride = data.draw(st.integers(0, (length - 2) // 2))
    strategy = data.draw(st.sampled_from(["first", "average", "max", "simple"]))
    options = {"aggregation_strategy": strategy}
    [windowed] = found(reader, [Labelled(text, (), {**options, "stride": stride})])
    [whole] = found(TokenReader(folder, CONFIG, WHOLE), [Labelled(text, (), options)])
    assert windowed == whole
    assert all(text[each.start : each.end] == each.text for each in windowed)
    assert [each.start for each in windowed] == sorted(each.start for each in windowed)


@given(st.lists(TEXTS, max_size=6), st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_entities_do_not_depend_on_what_else_is_in_the_batch(folder: Path, texts: list[str], limit: int) -> None:
    reader = TokenReader(folder, CONFIG, 20)
    together = found(reader, [Labelled(text) for text in texts], limit)
    assert together == [found(reader, [Labelled(text)])[0] for text in texts]


def test_tokens_are_those_of_all_windows_and_nothing_is_cut(folder: Path) -> None:
    reader = TokenReader(folder, CONFIG, 12)
    [short, empty, long] = reader.prepare([Labelled("cat sat"), Labelled(""), Labelled(" ".join(["cat"] * 30))])
    assert (short.tokens, empty.tokens) == (4, 2)
    assert [len(each) for each in long.payload.windowed.sequences] == [12] * 5  # room of 10, of which 5 are shared
    assert (long.tokens, long.truncated) == (60, False)
    assert found(reader, [Labelled("")]) == [()]


def test_only_the_labels_asked_for_are_told(folder: Path) -> None:
    reader = TokenReader(folder, CONFIG, 40)
    text = "the cat sat on a mat and saw two dogs run far away"
    [every], [some] = found(reader, [Labelled(text)]), found(reader, [Labelled(text, ("loc",))])
    assert {each.label for each in every} == {"PER", "LOC"}
    assert [(each.start, each.score) for each in some] == [
        (each.start, each.score) for each in every if each.label == "LOC"
    ]
    assert {each.label for each in some} == {"loc"}


def test_a_length_that_leaves_no_room_for_a_text_is_refused(folder: Path) -> None:
    with pytest.raises(LoadError, match="2 tokens leaves no room"):
        TokenReader(folder, CONFIG, 2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("plain text", "extracts from texts"),
        (Labelled("a", ("nobody",)), "'nobody'; its labels: LOC, PER"),
        (Labelled("a", (), {"stride": 6}), "stride is 6; windows of the model may share 5 tokens"),
    ],
)
def test_what_cannot_be_read_says_why(folder: Path, text: str | Labelled, named: str) -> None:
    with pytest.raises(UnsupportedInputError, match=named):
        TokenReader(folder, CONFIG, 12).prepare([text])
