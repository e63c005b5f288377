import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import LoadError, Picture, UnreadableImageError
from sie_server.adapters.shared.letterbox import Letterbox, read_letterbox
from tiny_donut import HEIGHT, WIDTH, donut_steps, sheet_of
from tiny_vision import picture


def letterbox(folder: Path, **changes: Any) -> Letterbox:
    donut_steps().save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return read_letterbox(folder)


@given(width=st.integers(8, 300), height=st.integers(8, 300), turns=st.booleans())
@settings(max_examples=40, deadline=None)
def test_sheets_equal_those_of_the_processor(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, turns: bool
) -> None:
    image = picture(width, height, 5)
    how = replace(letterbox(tmp_path_factory.mktemp("sheets")), turns=turns)
    np.testing.assert_array_equal(how.read(Picture(image)), sheet_of(image, do_align_long_axis=turns))


def test_sizes_are_read_as_old_and_new_files_have_them(tmp_path: Path) -> None:
    assert letterbox(tmp_path).size == (HEIGHT, WIDTH)
    assert letterbox(tmp_path, size=[WIDTH, HEIGHT]).size == (HEIGHT, WIDTH)


def test_an_image_that_is_too_long_and_narrow_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    how = replace(letterbox(tmp_path), size=(2560, 1920))
    with pytest.raises(UnreadableImageError, match="2 x 60000 pixels is too long"):
        how.read(Picture(picture(2, 60000)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"do_thumbnail": False}, "do_thumbnail False"), ({"size": {"width": 3}}, "Donut's preprocessor")],
)
def test_other_steps_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        letterbox(tmp_path, **changes)
