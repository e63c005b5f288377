from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import (
    DetectedObject,
    Input,
    Labelled,
    LabelledPicture,
    LoadError,
    ModelSpec,
    Picture,
    UnreadableImageError,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.owlv2 import Owlv2Adapter
from sie_server.core.lifecycle import ErrorClass
from tiny_owlv2 import PATCHES, in_the_image, owlv2_oracle, write_owlv2
from tiny_vision import TOKENS, picture

LABELS = ("a cat", "red car", "the fast dog runs", "two")
IMAGES = [picture(32, 32), picture(90, 40, 1, "JPEG"), picture(33, 71, 2, mode="RGBA"), picture(7, 5, 3, mode="L")]


def adapter(folder: Path) -> Owlv2Adapter:
    loaded = Owlv2Adapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}))
    loaded.load("cpu")
    return loaded


def asked(image: bytes, labels: tuple[str, ...] = LABELS, **options: Any) -> LabelledPicture:
    return LabelledPicture(Picture(image), labels, options)


def found(loaded: Owlv2Adapter, inputs: list[Input]) -> list[tuple[DetectedObject, ...]]:
    rows: Any = loaded.run(loaded.prepare(inputs), threads=1)["objects"]
    return list(rows)


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_owlv2(tmp_path_factory.mktemp("owlv2") / "model")


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_objects_equal_those_of_transformers(owl: Path, threshold: float) -> None:
    loaded, oracle = adapter(owl), owlv2_oracle(owl)
    rows = found(loaded, [asked(image, score_threshold=threshold) for image in IMAGES])
    labels, count = set(), 0
    for row, image, (width, height) in zip(rows, IMAGES, [(32, 32), (90, 40), (33, 71), (7, 5)], strict=True):
        wanted = in_the_image(oracle(image, LABELS, threshold), width, height)
        assert [each.label for each in row] == [label for label, _, _ in wanted]
        assert [each.score for each in row] == pytest.approx([score for _, score, _ in wanted], abs=1e-5)
        for each, (_, _, box) in zip(row, wanted, strict=True):
            assert list(each.bbox) == pytest.approx(box, rel=1e-5, abs=1e-5 * max(width, height))
        labels |= {each.label for each in row}
        count += len(row)
    assert len(labels) > 1  # so that the choice of labels is tested
    assert 0 < count <= PATCHES * len(IMAGES)


def test_the_threshold_leaves_out_what_is_not_sure_enough(owl: Path) -> None:
    loaded = adapter(owl)
    [everything], [usual] = found(loaded, [asked(IMAGES[1], score_threshold=0)]), found(loaded, [asked(IMAGES[1])])
    assert list(usual) == [each for each in everything if each.score > 0.1]
    middle = sorted(each.score for each in everything)[len(everything) // 2]
    [half] = found(loaded, [asked(IMAGES[1], score_threshold=middle)])
    assert list(half) == [each for each in everything if each.score > middle]  # itself is not above itself


@given(order=st.permutations(range(len(IMAGES) * 2)))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_images_of_one_batch_do_not_disturb_each_other(owl: Path, order: list[int]) -> None:
    loaded = adapter(owl)
    inputs: list[Input] = [asked(image, labels, score_threshold=0) for image in IMAGES for labels in (LABELS, ("dog",))]
    alone = [found(loaded, [each])[0] for each in inputs]
    for row, wanted in zip(found(loaded, [inputs[at] for at in order]), [alone[at] for at in order], strict=True):
        assert [each.label for each in row] == [each.label for each in wanted]
        assert [each.score for each in row] == pytest.approx([each.score for each in wanted], abs=1e-5)
        for each, own in zip(row, wanted, strict=True):
            assert list(each.bbox) == pytest.approx(list(own.bbox), abs=1e-3)


def test_a_template_stands_around_every_label_and_results_keep_the_callers_words(owl: Path) -> None:
    loaded = adapter(owl)
    [plain] = found(loaded, [asked(IMAGES[0], ("a photo of the cat", "a photo of the dog"), score_threshold=0)])
    [templated] = found(
        loaded, [asked(IMAGES[0], ("cat", "dog"), score_threshold=0, label_template="a photo of the {}")]
    )
    assert [(each.score, each.bbox) for each in templated] == [(each.score, each.bbox) for each in plain]
    assert {each.label for each in templated} <= {"cat", "dog"}


def test_repetitions_are_left_out_only_if_asked(owl: Path) -> None:
    loaded = adapter(owl)
    [everything] = found(loaded, [asked(IMAGES[0], ("cat",), score_threshold=0)])
    [apart] = found(loaded, [asked(IMAGES[0], ("cat",), score_threshold=0, nms_threshold=0.0)])
    [first] = found(loaded, [asked(IMAGES[0], ("cat",), score_threshold=0, max_objects=1)])
    assert set(apart) < set(everything)
    assert first == everything[:1]


def test_an_image_costs_its_patches_and_the_tokens_of_its_labels(owl: Path) -> None:
    (prepared,) = adapter(owl).prepare([asked(IMAGES[0], ("a cat", "dog"))])
    assert (prepared.tokens, prepared.truncated) == (PATCHES + 4 + 3, False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Labelled("a cat", ("cat",)), "finds things in images"),
        (Picture(IMAGES[0]), "finds things in images"),
        ("a cat", "finds things in images"),
        (asked(IMAGES[0], ()), "needs labels"),
        (asked(IMAGES[0], ("cat " * TOKENS,)), rf"has {TOKENS + 2} tokens, the limit is {TOKENS}"),
    ],
)
def test_what_it_cannot_read_is_refused(owl: Path, given: Input, says: str) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        adapter(owl).prepare([given])


def test_bytes_that_are_no_image_are_the_fault_of_their_item(owl: Path) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        adapter(owl).prepare([asked(b"no image")])


def test_a_preprocessor_that_makes_images_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"makes images of \(64, 64\) pixels, the model reads \(32, 32\)") as refused:
        adapter(write_owlv2(tmp_path / "model", side=64))
    assert refused.value.error_class is ErrorClass.UNKNOWN
