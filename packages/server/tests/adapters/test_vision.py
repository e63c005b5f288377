from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import Input, LoadError, ModelSpec, Pair, Picture, UnsupportedInputError, WeightsSource
from sie_server.adapters.vision import VisionAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_vision import SIGLIP_PAD, TOKENS, WIDTH, oracle_images, oracle_texts, picture, write_clip, write_siglip

TEXTS = ["a photo of the cat", "", "two red dog , runs", " ".join(["a cat runs fast"] * 9), "dog"]
IMAGES = [picture(32, 32), picture(90, 40, 1, "JPEG"), picture(33, 71, 2, mode="RGBA"), picture(7, 5, 3, mode="L")]


def adapter(folder: Path, dim: int = WIDTH, **options: Any) -> VisionAdapter:
    source = WeightsSource(path=str(folder))
    loaded = VisionAdapter(ModelSpec("org/tiny", source, {"dense": dim}, options))
    loaded.load("cpu")
    return loaded


def vectors(loaded: VisionAdapter, inputs: list[Input]) -> Array:
    return np.asarray(loaded.run(loaded.prepare(inputs), threads=1)["dense"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("vision") / "clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_siglip(tmp_path_factory.mktemp("vision") / "siglip")


@pytest.mark.parametrize(("activation", "wrong_end"), [("quick_gelu", True), ("gelu", False)])
def test_clip_equals_transformers(tmp_path: Path, activation: str, wrong_end: bool) -> None:
    folder = write_clip(tmp_path / "clip", activation=activation, wrong_end=wrong_end)
    loaded = adapter(folder)
    np.testing.assert_allclose(vectors(loaded, [*TEXTS]), oracle_texts(folder, TEXTS), atol=1e-5)
    found = vectors(loaded, [Picture(each) for each in IMAGES])
    np.testing.assert_allclose(found, oracle_images(folder, IMAGES), atol=1e-5)


def test_siglip_equals_transformers_with_texts_padded_to_its_length(siglip: Path) -> None:
    loaded = adapter(siglip, pad_token=SIGLIP_PAD)
    np.testing.assert_allclose(vectors(loaded, [*TEXTS]), oracle_texts(siglip, TEXTS), atol=1e-5)
    found = vectors(loaded, [Picture(each) for each in IMAGES])
    np.testing.assert_allclose(found, oracle_images(siglip, IMAGES), atol=1e-5)
    assert {each.tokens for each in loaded.prepare(list(TEXTS))} == {TOKENS}


def test_siglip_reads_texts_without_case_and_punctuation(siglip: Path) -> None:
    loaded = adapter(siglip, pad_token=SIGLIP_PAD, clean="strip")
    found = vectors(loaded, ["A photo, of  the CAT!", "a photo of the cat"])
    np.testing.assert_array_equal(found[0], found[1])


@given(order=st.permutations(range(len(TEXTS) + len(IMAGES))))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_and_images_of_one_batch_do_not_disturb_each_other(clip: Path, order: list[int]) -> None:
    loaded = adapter(clip)
    inputs: list[Input] = [*TEXTS, *map(Picture, IMAGES)]
    alone = np.concatenate([vectors(loaded, [each]) for each in inputs])
    np.testing.assert_allclose(vectors(loaded, [inputs[at] for at in order]), alone[order], atol=1e-5)


def test_a_text_and_an_image_land_in_one_space_of_unit_vectors(clip: Path) -> None:
    found = vectors(adapter(clip), ["a cat", Picture(IMAGES[0])])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    raw = vectors(adapter(clip, normalize=False), ["a cat"])
    assert abs(float(np.linalg.norm(raw)) - 1) > 1e-3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (picture(10_000, 10_000, mode="1"), r"10000 x 10000 pixels, the limit is 40000000"),
        (b"", "cannot be read"),
        (b"GIF89a nothing", "cannot be read"),
        (IMAGES[0][:200], "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "send one of: PNG, JPEG"),
    ],
)
def test_what_is_no_image_or_too_large_a_one_is_refused_before_it_is_decoded(
    clip: Path, data: bytes, says: str
) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        adapter(clip).prepare([Picture(data)])


def test_a_pair_is_refused(clip: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="one at a time"):
        adapter(clip).prepare([Pair("a", "b")])


def test_long_texts_are_cut_and_counted(clip: Path) -> None:
    (prepared,) = adapter(clip).prepare(["cat " * 40])
    assert (prepared.tokens, prepared.truncated) == (TOKENS, True)


def test_a_catalogue_that_promises_other_vectors_is_refused(clip: Path) -> None:
    with pytest.raises(LoadError, match="32 components, the catalogue says 7") as refused:
        adapter(clip, dim=7)
    assert refused.value.error_class is ErrorClass.UNKNOWN


def test_a_padding_token_that_is_none_of_the_models_is_refused(siglip: Path) -> None:
    with pytest.raises(LoadError, match="pad_token '<none>'"):
        adapter(siglip, pad_token="<none>")  # noqa: S106 - of a tokenizer
