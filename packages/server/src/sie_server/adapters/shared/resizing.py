"""Encoded images made as large as a detector reads them, with their proportions kept."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture
from sie_server.adapters.shared.checkpoint import read_numbers
from sie_server.adapters.shared.images import (
    Scaling,
    read_config,
    read_image,
    read_resampling,
    read_scaling,
    too_narrow,
)

LEAST_SIDE: Final = 32  # pixels after resizing: one place of the coarsest map that detectors look at


@dataclass(frozen=True, slots=True)
class Scaled:
    """Pixels [rows, columns, 3] as uint8; `width` and `height` are the picture's own."""

    pixels: Array
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Resizing:
    """The shorter side becomes `shortest` pixels long, or fewer where the longer one would exceed `longest`."""

    shortest: int
    longest: int
    resample: Image.Resampling
    scaling: Scaling

    def read(self, picture: Picture) -> Scaled:
        """The resized pixels.

        Raises:
            UnreadableImageError: as `read_image`, and when the shorter side would be too short.
        """
        return read_image(picture, partial(_scaled, how=self))


def scaled_size(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """(width, height) after resizing, rounded as DETR and its kin round it: the other side is cut to whole pixels."""
    low, high = min(width, height), max(width, height)
    exact = longest * low / high if high / low * shortest > longest else float(shortest)
    short = round(exact)
    if low == short:
        return width, height
    long = int(exact * high / low)
    return (short, long) if width < height else (long, short)


def read_resizing(folder: Path) -> Resizing:
    """From `preprocessor_config.json`.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_config(folder)
    return read_numbers(
        "detector's preprocessor",
        lambda: Resizing(
            shortest=int(config["size"]["shortest_edge"]),
            longest=int(config["size"]["longest_edge"]),
            resample=read_resampling(config, Image.Resampling.BILINEAR),
            scaling=read_scaling(config),
        ),
    )


def _scaled(image: Image.Image, how: Resizing) -> Scaled:
    width, height = image.size
    size = scaled_size(width, height, how.shortest, how.longest)
    if min(size) < LEAST_SIDE:
        raise too_narrow(width, height)
    return Scaled(np.asarray(image.resize(size, how.resample)), width, height)
