"""The square that OWLv2 reads equals that of its published processor."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Picture, UnreadableImageError
from sie_server.adapters.shared.images import Scaling
from sie_server.adapters.shared.square import Squaring, read_squaring
from tiny_owlv2 import processed, processor

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SCALING = Scaling(1 / 255, MEAN, DEVIATION)


def encoded(pixels: Array) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue())


def noise(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The processor takes 1 or 3 rows, of an image or a result, for colours that come first: the next test is for those.
@given(st.integers(4, 90), st.integers(1, 90), st.integers(4, 40), st.integers(1, 40))
@example(64, 1, 5, 5)
@example(32, 32, 32, 32)
@example(200, 20, 7, 1)
@settings(max_examples=60, deadline=None)
def test_pixels_equal_those_of_the_processor(height: int, width: int, rows: int, columns: int) -> None:
    image = noise(height, width)
    squaring = Squaring((rows, columns), SCALING)
    [found] = squaring.framed([squaring.read(encoded(image))])
    np.testing.assert_allclose(found, processed(image, rows, columns), atol=1e-5)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
@example(1, 1, 16)
@example(3, 200, 24)
@settings(max_examples=30, deadline=None)
def test_rows_are_read_as_columns_are(height: int, width: int, side: int) -> None:
    image = noise(height, width)
    squaring = Squaring((side, side), SCALING)
    upright, lying = (squaring.read(encoded(each)).pixels for each in (image, image.transpose(1, 0, 2)))
    np.testing.assert_allclose(lying, upright.transpose(0, 2, 1), atol=1e-5)


def test_what_lies_in_the_padding_is_not_stored() -> None:
    squaring = Squaring((40, 40), SCALING)
    read = squaring.read(encoded(noise(25, 100)))
    assert (read.width, read.height, read.side) == (100, 25, 100)
    assert read.pixels.shape[2] == 40
    assert 10 <= read.pixels.shape[1] <= 14  # a quarter of the rows, and those that the blur reaches


@pytest.mark.parametrize(("width", "height"), [(70_000, 1), (1, 70_000)])
def test_an_image_with_a_side_that_is_too_long_is_refused(width: int, height: int) -> None:
    squaring = Squaring((16, 16), SCALING)
    with pytest.raises(UnreadableImageError, match=f"{width} x {height} pixels is too long and narrow"):
        squaring.read(encoded(np.zeros((height, width, 3), np.uint8)))


def test_the_numbers_come_from_the_published_file(tmp_path: Path) -> None:
    processor(24).save_pretrained(tmp_path)
    read = read_squaring(tmp_path)
    assert read.size == (24, 24)
    assert read.scaling.rescale == pytest.approx(1 / 255)
    assert read.scaling.mean == pytest.approx(MEAN)
    assert read.scaling.deviation == pytest.approx(DEVIATION)


@pytest.mark.parametrize("text", ['{"size": 16}', '{"size": 16, "do_pad": false}', '{"size": "x", "image_mean": []}'])
def test_a_file_that_asks_for_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(LoadError):
        read_squaring(tmp_path)
