"""Encoded images to tiles of one size: the image row by row at a high resolution, and all of it once more in one tile.

Published with Idefics3 (Laurençon et al. 2024, arXiv 2408.12637) and SmolVLM. Every image is made as long as the model
looks at, also a smaller one; then both sides are stretched to multiples of a tile's.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Picture
from sie_server.adapters.shared.checkpoint import read_numbers
from sie_server.adapters.shared.images import Scaling, read_config, read_image, read_resampling, read_scaling
from sie_server.core.lifecycle import ErrorClass

LONGEST_SIDE: Final = 4096  # pixels; the published preprocessor makes nothing longer
ONE_TILE: Final = (0, 0)  # rows and columns of an image that is not cut


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an image becomes tiles of `side` x `side` pixels.

    Its longer side becomes `longest` pixels before it is cut; without `splits` there is one tile of the whole.
    """

    side: int
    longest: int
    splits: bool
    resample: Image.Resampling
    scaling: Scaling

    def read(self, picture: Picture) -> tuple[Array, tuple[int, int]]:
        """Pixels [tiles, side, side, 3] as uint8, and how many rows and columns were cut; the last tile is the whole.

        Raises:
            UnreadableImageError: as `read_image`.
        """
        return read_image(picture, self._cut)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image when its longer side is `longest`; the shorter one is even."""
        shape = width / height
        if width >= height:
            return max(1, _even(int(self.longest / shape))), self.longest
        return self.longest, max(1, _even(int(self.longest * shape)))

    @property
    def most(self) -> tuple[int, int]:
        """Rows and columns of the image with the most tiles, a square."""
        along = math.ceil(self.longest / self.side)
        return (along, along) if self.splits and along > 1 else ONE_TILE

    def counts(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles that hold an image once it has `size`; its sides are stretched to theirs."""
        height, width = self.size(height, width)
        shape = width / height
        if width >= height:
            columns = math.ceil(width / self.side)
            return max(1, math.ceil(int(columns * self.side / shape) / self.side)), columns
        rows = math.ceil(height / self.side)
        return rows, max(1, math.ceil(int(rows * self.side * shape) / self.side))

    def _cut(self, image: Image.Image) -> tuple[Array, tuple[int, int]]:
        rows, columns = self.counts(image.height, image.width)
        height, width = self.size(image.height, image.width)
        image = image.resize((width, height), self.resample)
        if not self.splits:
            return self._tiles(image, ONE_TILE)
        image = image.resize((columns * self.side, rows * self.side), self.resample)
        return self._tiles(image, (rows, columns) if rows * columns > 1 else ONE_TILE)

    def _tiles(self, image: Image.Image, tiles: tuple[int, int]) -> tuple[Array, tuple[int, int]]:
        rows, columns = tiles
        parts = np.asarray(image)[: rows * self.side, : columns * self.side]
        parts = parts.reshape(rows, self.side, columns, self.side, 3).swapaxes(1, 2)
        whole = np.asarray(image.resize((self.side, self.side), self.resample))
        return np.concatenate((parts.reshape(-1, self.side, self.side, 3), whole[None])), tiles


def read_tiling(folder: Path) -> Tiling:
    """From `preprocessor_config.json`, or the part of `processor_config.json` that newer folders have in its place.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_config(folder)

    def read() -> Tiling:
        return Tiling(
            side=int(config["max_image_size"]["longest_edge"]),
            longest=int(config["size"]["longest_edge"]),
            splits=bool(config.get("do_image_splitting", True)),
            resample=read_resampling(config, Image.Resampling.LANCZOS),
            scaling=read_scaling(config),
        )

    tiling = read_numbers("vision model's preprocessor", read)
    if not 0 < tiling.side <= tiling.longest <= LONGEST_SIDE:
        message = (
            f"the preprocessor makes tiles of {tiling.side} pixels of images that are {tiling.longest} long; the sides "
            f"of images are 1 to {LONGEST_SIDE} pixels, and no tile is longer"
        )
        raise LoadError(ErrorClass.UNKNOWN, message)
    return tiling


def _even(length: int) -> int:
    return length + length % 2
