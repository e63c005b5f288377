from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.florence_output import NAMES_NOTHING, TASKS, Reading, Scale
from tiny_florence2 import FINE, FlorenceOracle, florence_oracle, write_florence2

WORDS = st.sampled_from(["a cat", " dog", "it", "the image", "caf\u00e9", "a\nb", " ", "x < y", "a", "1>2"])
PLACE = st.integers(0, 999).map("<loc_{}>".format)
PIECES = st.lists(
    st.one_of(WORDS, PLACE, st.lists(PLACE, min_size=4, max_size=12).map("".join), st.sampled_from(["<sep>", "<and>"])),
    max_size=8,
)
# As models write them: a name, and behind it places.
TIDY = st.lists(st.tuples(WORDS, st.integers(1, 3).flatmap(lambda n: st.lists(PLACE, min_size=4 * n, max_size=4 * n))))
OUTLINE = st.lists(PLACE, min_size=2, max_size=9).map("".join)
OUTLINES = st.lists(
    st.tuples(
        WORDS, st.sampled_from(["<poly>", ""]), st.lists(OUTLINE, max_size=3), st.sampled_from(["</poly>", "", "<sep>"])
    )
)
TEXTS = st.one_of(
    PIECES.map("".join),
    TIDY.map(lambda each: "".join(word + "".join(places) for word, places in each)),
    OUTLINES.map(lambda each: "".join(word + a + "<sep>".join(lines) + b for word, a, lines, b in each)),
)
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> FlorenceOracle:
    made = florence_oracle(write_florence2(tmp_path_factory.mktemp("places") / "model"))
    made.processor.post_processor.banned_grounding_tokens = set(NAMES_NOTHING)
    return made


def read(text: str, task: str, width: int, height: int, **options: Any) -> Any:
    own = TASKS[task]
    return own.read(Reading((text,), ((-1.0,),)), task, own.label, Scale(width, height), options)


@pytest.mark.parametrize("task", TASKS)
def test_answers_equal_those_of_transformers_processor(oracle: FlorenceOracle, task: str) -> None:
    @given(TEXTS, SIZES)
    def law(text: str, size: tuple[int, int]) -> None:
        ours, theirs = read(text, task, *size).data.values[task], oracle.answer(text, task, size)
        assert rounded(ours) == rounded(theirs)

    law()


def rounded(value: Any) -> Any:
    """Numbers in the parts of a pixel that the oracle cuts at, off by none or one; the rest as it is."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return Near(value) if isinstance(value, float) else value


class Near(float):
    """A number that equals those close to it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) <= 1.5 / FINE

    __hash__ = None  # type: ignore[assignment]


@given(TEXTS, SIZES, st.sampled_from(sorted(TASKS)))
def test_boxes_lie_in_the_image_and_the_surest_come_first(text: str, size: tuple[int, int], task: str) -> None:
    width, height = size
    answer = read(text, task, width, height)
    scores = [each.score for each in answer.objects]
    assert scores == sorted(scores, reverse=True)
    for x, y, across, down in [each.bbox for each in (*answer.objects, *answer.entities) if each.bbox is not None]:
        assert 0 <= x <= x + across <= width
        assert 0 <= y <= y + down <= height


def test_a_region_is_as_sure_as_its_own_words_and_places() -> None:
    box = tuple(f"<loc_{at}>" for at in (100, 100, 500, 500))
    reading = Reading(("a cat", *box, "dog", *box), ((-1.0, -3.0), *[(0.0,)] * 4, (-0.5,), *[(0.0,)] * 4))
    answer = TASKS["<OD>"].read(reading, "<OD>", "", Scale(10, 10), {})
    assert [each.label for each in answer.objects] == ["dog", "a cat"]
    assert [each.score for each in answer.objects] == pytest.approx(
        [2.718281828 ** (-0.5 / 5), 2.718281828 ** (-4 / 6)]
    )


def test_objects_may_be_few_and_apart() -> None:
    box = "".join(f"<loc_{at}>" for at in (100, 100, 500, 500))
    text = f"cat{box}{box}dog{box}"
    assert len(read(text, "<OD>", 10, 10).objects) == 3
    assert [each.label for each in read(text, "<OD>", 10, 10, nms_threshold=0.5).objects] == ["cat", "dog"]
    assert len(read(text, "<OD>", 10, 10, max_objects=1).objects) == 1


def test_text_with_corners_is_an_entity_with_the_box_around_them() -> None:
    corners = "".join(f"<loc_{at}>" for at in (99, 199, 899, 149, 909, 299, 109, 349))
    [found] = read(f"Total {corners}", "<OCR_WITH_REGION>", 1000, 1000).entities
    assert (found.text, found.label) == ("Total", "text")
    assert list(found.bbox) == pytest.approx([99.5, 149.5, 810, 200])


def test_boxes_and_outlines_without_a_name_are_called_after_their_task() -> None:
    box = "".join(f"<loc_{at}>" for at in (100, 100, 500, 500))
    assert [each.label for each in read(box, "<REGION_PROPOSAL>", 9, 9).objects] == ["region"]
    assert [each.label for each in read(box, "<REGION_TO_SEGMENTATION>", 9, 9).objects] == ["segment"]
