import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.catalog import ExtractTask, ModelConfig, ProfileConfig, Tasks
from sie_protocol.errors import ErrorCode, Problem
from sie_server.core.mentions import MAX_MENTIONS, Mention, mentions_of

MODEL = ModelConfig(
    sie_id="org/glirel",
    tasks=Tasks(extract=ExtractTask(entities="required")),
    profiles={"default": ProfileConfig(adapter="glirel")},
)
TEXT = "Ada met Bob in Zürich  "


@given(st.lists(st.tuples(st.integers(0, 21), st.integers(1, 22)).filter(lambda each: each[0] < each[1]), max_size=20))
def test_every_piece_is_kept_once_in_the_callers_order(places: list[tuple[int, int]]) -> None:
    text = "x" * 22
    entities = [{"text": text[start:end], "label": "a", "start": start, "end": end} for start, end in places]
    assert mentions_of(MODEL, "item 0", text, {"entities": entities}) == tuple(dict.fromkeys(places))


def test_entities_as_an_extractor_gives_them_are_read() -> None:
    own = {"text": "Bob", "label": "person", "score": 0.9, "start": 8, "end": 11, "bbox": None}
    bare = {"start": 15, "end": 21}
    assert mentions_of(MODEL, "item 0", TEXT, {"entities": [own, bare]}) == (Mention(8, 11), Mention(15, 21))
    assert mentions_of(MODEL, "item 0", TEXT, {"entities": []}) == ()


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        (None, "item 3 has no metadata.entities, between which model 'org/glirel' finds relations"),
        ({}, "item 3 has no metadata.entities"),
        ({"entities": {"start": 0, "end": 3}}, "item 3 has no metadata.entities"),
        ({"entities": [{"start": 0, "end": 3}, "Bob"]}, r"metadata.entities\[1\] of item 3 is 'Bob'; expected a list"),
        ({"entities": [{"text": "Ada", "label": "x"}]}, r"metadata.entities\[0\] of item 3 is {'text': 'Ada'"),
        ({"entities": [{"start": 0, "end": True}]}, "expected a list of {start, end"),
        ({"entities": [{"start": 0.0, "end": 3}]}, "expected a list of {start, end"),
        ({"entities": [{"start": -3, "end": 3}]}, "expected a list of {start, end"),
        ({"entities": [{"start": 3, "end": 3}]}, "from 3 to 3, which is no piece of a text of 23 characters"),
        ({"entities": [{"start": 3, "end": 99}]}, "from 3 to 99"),
        ({"entities": [{"start": 21, "end": 23}]}, "nothing but spaces"),
        ({"entities": [{"start": 0, "end": 3, "text": "Bob"}]}, "said to be 'Bob', but from 0 to 3 the text has 'Ada'"),
    ],
)
def test_what_is_no_piece_of_the_text_is_refused_and_named(metadata: object, named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        mentions_of(MODEL, "item 3", TEXT, metadata)  # type: ignore[arg-type]  # as a caller may send it
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_more_entities_than_can_be_compared_are_refused() -> None:
    entities = [{"start": 0, "end": 3}] * (MAX_MENTIONS + 1)
    with pytest.raises(Problem, match="257 entities, the limit is 256") as refused:
        mentions_of(MODEL, "item 0", TEXT, {"entities": entities})
    assert refused.value.code is ErrorCode.INPUT_TOO_LONG
