"""Tiles of images are those of Idefics3's preprocessor, to the pixel."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sie_server.adapters.base import LoadError, Picture
from sie_server.adapters.shared.images import Scaling
from sie_server.adapters.shared.tiles import ONE_TILE, Tiling, read_tiling
from sie_server.core.lifecycle import ErrorClass
from tiny_vision import picture
from warnings_of_others import ignoring

with ignoring():
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

SAID: dict[str, Any] = {
    "size": {"longest_edge": 60},
    "max_image_size": {"longest_edge": 16},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 1,
}


def tiling(folder: Path, **change: Any) -> Tiling:
    (folder / "preprocessor_config.json").write_text(json.dumps(SAID | change))
    return read_tiling(folder)


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    longest=st.integers(16, 70),
    splits=st.booleans(),
    mode=st.sampled_from(["RGB", "L", "RGBA", "1"]),
)
@settings(max_examples=150, deadline=None)
def test_tiles_are_those_of_the_published_preprocessor(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, longest: int, splits: bool, mode: str
) -> None:
    said = {"size": {"longest_edge": longest}, "do_image_splitting": splits}
    data = picture(width, height, 1, mode=mode)
    pixels, (rows, columns) = tiling(tmp_path_factory.mktemp("tiles"), **said).read(Picture(data))
    with ignoring():
        processor: Any = Idefics3ImageProcessorPil(**SAID | said)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        found = processor([[image]], return_row_col_info=True, do_normalize=False, do_rescale=False)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), found["pixel_values"][0])
    assert [[rows], [columns]] == [found["rows"][0] if splits else [0], found["cols"][0] if splits else [0]]
    assert len(pixels) == rows * columns + 1


@given(width=st.integers(1, 10_000), height=st.integers(1, 10_000))
@settings(max_examples=300, deadline=None)
def test_no_image_has_more_tiles_than_a_square_one(width: int, height: int) -> None:
    scaling = Scaling(1 / 255, (0.5,) * 3, (0.5,) * 3)
    own = Tiling(512, 2048, splits=True, resample=Image.Resampling.LANCZOS, scaling=scaling)
    rows, columns = own.counts(height, width)
    assert max(rows, columns) == 4 == own.most[0] == own.most[1]
    assert min(rows, columns) >= 1


@pytest.mark.parametrize(
    ("change", "error_class", "says"),
    [
        ({"size": {"longest_edge": 5000}}, ErrorClass.UNKNOWN, "tiles of 16 pixels of images that are 5000 long"),
        ({"size": {"longest_edge": 15}}, ErrorClass.UNKNOWN, "tiles of 16 pixels of images that are 15 long"),
        ({"size": {"height": 9}}, ErrorClass.UNKNOWN, "longest_edge"),
        ({"max_image_size": None}, ErrorClass.UNKNOWN, "preprocessor"),
        ({"do_resize": False}, ErrorClass.DEPENDENCY, "do_resize False"),
    ],
)
def test_preprocessors_that_are_not_computed_here_are_refused(
    tmp_path: Path, change: dict[str, Any], error_class: ErrorClass, says: str
) -> None:
    with pytest.raises(LoadError, match=says) as refused:
        tiling(tmp_path, **change)
    assert refused.value.error_class is error_class


def test_an_image_that_fits_into_a_tile_is_not_cut(tmp_path: Path) -> None:
    own = tiling(tmp_path, size={"longest_edge": 16})
    pixels, tiles = own.read(Picture(picture(300, 200)))
    assert (pixels.shape, tiles, own.most) == ((1, 16, 16, 3), ONE_TILE, ONE_TILE)
