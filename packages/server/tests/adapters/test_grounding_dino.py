import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

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
from sie_server.adapters.grounding_dino import GroundingDinoAdapter
from sie_server.adapters.shared.resizing import scaled_size
from sie_server.core.lifecycle import ErrorClass
from tiny_grounding_dino import WORDS, dino_oracle, resized, size_of, write_grounding_dino
from tiny_owlv2 import in_the_image
from tiny_vision import picture

LABELS = ("a cat", "Red car", "fast dog")
IMAGES = [picture(64, 64), picture(90, 40, 1, "JPEG"), picture(33, 71, 2, mode="RGBA"), picture(200, 160, 3)]
SIZES = [(64, 64), (90, 40), (33, 71), (200, 160)]


def adapter(folder: Path) -> GroundingDinoAdapter:
    loaded = GroundingDinoAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}))
    loaded.load("cpu")
    return loaded


def asked(image: bytes, labels: tuple[str, ...] = LABELS, box: float = 0.0, text: float = 0.0) -> LabelledPicture:
    return LabelledPicture(Picture(image), labels, {"box_threshold": box, "text_threshold": text})


def found(loaded: GroundingDinoAdapter, inputs: list[Input]) -> list[tuple[DetectedObject, ...]]:
    rows: Any = loaded.run(loaded.prepare(inputs), threads=1)["objects"]
    return list(rows)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grounding_dino(tmp_path_factory.mktemp("grounding_dino") / "model")


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_boxes_and_scores_equal_those_of_transformers(dino: Path, threshold: float) -> None:
    loaded, oracle = adapter(dino), dino_oracle(dino)
    count = 0
    for image, (width, height) in zip(IMAGES, SIZES, strict=True):
        [row] = found(loaded, [asked(image, box=threshold)])
        theirs = oracle(image, LABELS, threshold, 0.0)
        wanted = in_the_image([(phrase, score, box) for score, box, phrase in theirs], width, height)
        assert [each.score for each in row] == pytest.approx([score for _, score, _ in wanted], abs=1e-5)
        for each, (_, _, box) in zip(row, wanted, strict=True):
            assert list(each.bbox) == pytest.approx(box, abs=1e-5 * max(width, height))
        count += len(row)
    assert count > 0


def test_a_label_is_one_that_the_phrase_of_transformers_has_words_of(dino: Path) -> None:
    loaded, oracle, labels = adapter(dino), dino_oracle(dino), set()
    for image, (width, height) in zip(IMAGES, SIZES, strict=True):
        everything = found(loaded, [asked(image)])[0]
        threshold = sorted(each.score for each in everything)[len(everything) // 2] * 0.9
        [row] = found(loaded, [asked(image, text=threshold)])
        theirs = oracle(image, LABELS, 0.0, threshold)
        named = [each for each in theirs if set(each[2].split()) & set(WORDS.values())]
        wanted = in_the_image([(phrase, score, box) for score, box, phrase in named], width, height)
        assert len(row) == len(wanted)
        for each, (phrase, _, _) in zip(row, wanted, strict=True):
            assert each.label in LABELS  # in the caller's own spelling
            assert set(each.label.lower().split()) & set(phrase.split())
        labels |= {each.label for each in row}
    assert len(labels) > 1


@given(order=st.permutations(range(len(IMAGES) * 2)))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_images_of_any_size_and_labels_share_a_batch_without_disturbing_each_other(
    dino: Path, order: list[int]
) -> None:
    loaded = adapter(dino)
    inputs: list[Input] = [asked(image, labels) for image in IMAGES for labels in (LABELS, ("dog",))]
    inputs += [asked(IMAGES[0]), asked(IMAGES[0])]
    alone = [found(loaded, [each])[0] for each in inputs]
    for row, wanted in zip(found(loaded, [inputs[at] for at in order]), [alone[at] for at in order], strict=True):
        assert [each.score for each in row] == pytest.approx([each.score for each in wanted], abs=1e-5)
        assert sorted(each.label for each in row) == sorted(each.label for each in wanted)


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=100, deadline=None)
def test_sizes_are_those_of_the_processor(width: int, height: int) -> None:
    assert scaled_size(width, height, 800, 1333) == size_of(width, height)


@pytest.mark.parametrize("at", range(len(IMAGES)))
def test_pixels_equal_those_of_the_processor(dino: Path, at: int) -> None:
    (prepared,) = adapter(dino).prepare([asked(IMAGES[at])])
    np.testing.assert_array_equal(prepared.payload.picture.pixels, resized(IMAGES[at]))


def test_an_image_costs_its_area_and_the_tokens_of_its_labels(dino: Path) -> None:
    (prepared,) = adapter(dino).prepare([asked(picture(128, 64), ("a cat", "dog"))])
    assert prepared.payload.picture.pixels.shape == (48, 96, 3)
    assert prepared.tokens == 3 * 6 + len(["[CLS]", "a", "cat", ".", "dog", ".", "[SEP]"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Labelled("a cat", ("cat",)), "finds things in images"),
        (asked(IMAGES[0], ()), "needs labels"),
        (asked(IMAGES[0], ("cat", "Mr. Dog")), "'Mr. Dog' has a full stop"),
        (asked(IMAGES[0], ("cat " * 40,)), "have 43 tokens together, the limit is 32"),
        (asked(IMAGES[0], tuple(f"w{at}" for at in range(20))), "20 labels have 42 tokens together"),
    ],
)
def test_what_it_cannot_read_is_refused(dino: Path, given: Input, says: str) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        adapter(dino).prepare([given])


@pytest.mark.parametrize(("data", "says"), [(b"no image", "cannot be read"), (picture(400, 20), "400 x 20 pixels is")])
def test_an_image_that_cannot_be_read_is_the_fault_of_its_item(dino: Path, data: bytes, says: str) -> None:
    with pytest.raises(UnreadableImageError, match=says):
        adapter(dino).prepare([asked(data)])


def test_weights_that_lack_a_tensor_are_refused(dino: Path, tmp_path: Path) -> None:
    for file in dino.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(dino / "model.safetensors")
    gone = next(name for name in tensors if "text_projection" in name)
    save_file({name: each for name, each in tensors.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match="text_projection") as refused:
        adapter(tmp_path)
    assert refused.value.error_class is ErrorClass.UNKNOWN


def test_another_model_is_refused(dino: Path, tmp_path: Path) -> None:
    for file in dino.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((dino / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mm-grounding-dino"}))
    with pytest.raises(LoadError, match="'mm-grounding-dino'; this adapter runs 'grounding-dino' only"):
        adapter(tmp_path)


def test_without_transformers_the_extra_that_brings_it_is_named(dino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LoadError, match=r"install sie-server\[transformers\]") as refused:
        adapter(dino)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
