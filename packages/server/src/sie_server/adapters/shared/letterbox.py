"""Encoded images as sheets of one size, as Donut reads documents: shrunk until they fit, and padded around."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.images import (
    Scaling,
    read_config,
    read_image,
    read_resampling,
    read_scaling,
    read_sides,
    too_narrow,
    with_shorter_side,
)

TURNED: Final = Image.Transpose.ROTATE_270


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image becomes a sheet of `size` (height, width).

    Its shorter side first becomes as long as the sheet's shorter one; what then is larger than the sheet shrinks in its
    proportions. The rest is black, half of it on each side. `turns`: a page that lies on its side is turned first.
    """

    size: tuple[int, int]
    turns: bool
    resample: Image.Resampling
    scaling: Scaling

    def read(self, picture: Picture) -> Array:
        """Pixels [height, width, 3] as uint8.

        Raises:
            UnreadableImageError: as `read_image`, and when it is too long and narrow.
        """
        return read_image(picture, partial(_sheet, how=self))


def read_letterbox(folder: Path) -> Letterbox:
    """From the configuration that `read_config` finds.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_config(folder)
    for step in ("do_thumbnail", "do_pad"):
        expect(config, step, True, default=True)

    def read() -> Letterbox:
        return Letterbox(
            size=_size(config["size"]),
            turns=bool(config.get("do_align_long_axis", False)),
            resample=read_resampling(config, Image.Resampling.BILINEAR),
            scaling=read_scaling(config),
        )

    return read_numbers("Donut's preprocessor", read)


def _size(size: Any) -> tuple[int, int]:
    """(height, width); older files have [width, height]."""
    if isinstance(size, list):
        width, height = map(int, size)
        return height, width
    return read_sides(size)


def _sheet(image: Image.Image, how: Letterbox) -> Array:
    high, wide = how.size
    lies = (wide < high and image.width > image.height) or (wide > high and image.width < image.height)
    if how.turns and lies:
        image = image.transpose(TURNED)
    image = _thumbnail(with_shorter_side(image, min(how.size), how.resample), how)
    sheet = np.zeros((high, wide, 3), np.uint8)
    top, left = (high - image.height) // 2, (wide - image.width) // 2
    sheet[top : top + image.height, left : left + image.width] = np.asarray(image)
    return sheet


def _thumbnail(image: Image.Image, how: Letterbox) -> Image.Image:
    width, height = min(image.width, how.size[1]), min(image.height, how.size[0])
    if (width, height) == image.size:
        return image
    if image.height > image.width:
        width = int(image.width * height / image.height)
    elif image.width > image.height:
        height = int(image.height * width / image.width)
    if min(width, height) < 1:
        raise too_narrow(*image.size)
    return image.resize((width, height), how.resample)
