"""Images that keep their shape get the size that transformers gives them, within the worker's bounds."""

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.images import LONGEST_SHAPE, FreeShape, Scaling, read_free_shape, read_preprocessing

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

SCALING = Scaling(1 / 255, (0.5,) * 3, (0.25,) * 3)
SIDES = st.integers(1, 5000)
WRITTEN = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255, "resample": 2}


@given(SIDES, SIDES, st.sampled_from([4, 16, 28]), st.integers(1, 40), st.integers(50, 2000))
def test_an_image_gets_the_size_that_transformers_gives_it(
    height: int, width: int, step: int, least: int, most: int
) -> None:
    shape = FreeShape(step, least * step**2, most * step**2, Image.Resampling.BICUBIC, SCALING)
    if max(height, width) <= LONGEST_SHAPE * min(height, width):
        assert shape.size(height, width) == smart_resize(height, width, step, shape.least, shape.most)
    down, across = shape.size(height, width)
    assert down % step == across % step == 0


@pytest.mark.parametrize(
    "said",
    [
        {"min_pixels": 64, "max_pixels": 4096},
        {"min_pixels": 64, "max_pixels": 4096, "size": {"shortest_edge": 1, "longest_edge": 2}},
        {"size": {"shortest_edge": 64, "longest_edge": 4096}},
        {"size": {"min_pixels": 64, "max_pixels": 4096}},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_bounds_are_read_however_they_were_written(tmp_path: Path, said: dict[str, object], nested: bool) -> None:
    name = "processor_config.json" if nested else "preprocessor_config.json"
    config = WRITTEN | said
    (tmp_path / name).write_text(json.dumps({"image_processor": config} if nested else config))
    assert read_free_shape(tmp_path, 8, 5000) == FreeShape(8, 64, 4096, Image.Resampling.BILINEAR, SCALING)
    assert read_free_shape(tmp_path, 8, 1000).most == 1000
    assert read_free_shape(tmp_path, 8, 10).least == 10


def test_a_folder_that_does_not_say_how_images_are_read_is_refused(tmp_path: Path) -> None:
    for read in (lambda: read_preprocessing(tmp_path), lambda: read_free_shape(tmp_path, 8, 100)):
        with pytest.raises(LoadError, match=r"no preprocessor_config\.json"):
            read()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WRITTEN))
    with pytest.raises(LoadError, match="min_pixels"):
        read_free_shape(tmp_path, 8, 100)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WRITTEN | {"do_resize": False}))
    with pytest.raises(LoadError, match="do_resize False"):
        read_free_shape(tmp_path, 8, 100)
