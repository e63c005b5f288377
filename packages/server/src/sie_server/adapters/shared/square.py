"""Encoded images to the square that OWLv2 reads: padded below and at the right, then made smaller without aliasing.

The steps of the published preprocessor: a Gaussian blur as wide as the image shrinks, then linear interpolation between
the centres of pixels, with the image mirrored at its edges (what scikit-image calls `resize`). Both are sums over one
axis, so here they are one sum over the rows and one over the columns. What lies in the padding is zero throughout: it
is neither stored nor computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.images import Scaling, read_config, read_image, read_scaling, read_sides, too_narrow

MAX_SIDE: Final = 65_535  # pixels; as long as a JPEG can be. The weights of one axis take memory in proportion
BLUR_ENDS: Final = 4.0  # standard deviations, as scipy cuts it


@dataclass(frozen=True, slots=True)
class Squared:
    """The upper left part of the square, which holds the picture: float32 [3, rows, columns], scaled and shifted.

    `width` and `height` are the picture's own, in pixels.
    """

    pixels: Array
    width: int
    height: int

    @property
    def side(self) -> int:
        """Pixels that a side of the whole square stands for."""
        return max(self.width, self.height)


@dataclass(frozen=True, slots=True)
class Squaring:
    """How an image becomes a square of `size` (height, width), its numbers as the model saw them in training."""

    size: tuple[int, int]
    scaling: Scaling

    def read(self, picture: Picture) -> Squared:
        """The pixels of the picture itself.

        Raises:
            UnreadableImageError: as `read_image`, and when a side is too long.
        """
        return read_image(picture, partial(_squared, how=self))

    def framed(self, pictures: Sequence[Squared]) -> Array:
        """Whole squares of float32 [pictures, 3, height, width]: black where there is no picture."""
        frames = np.empty((len(pictures), 3, *self.size), np.float32)
        frames[:] = self.shifted(np.zeros((3, 1, 1), np.float32))
        for frame, picture in zip(frames, pictures, strict=True):
            _, rows, columns = picture.pixels.shape
            frame[:, :rows, :columns] = picture.pixels
        return frames

    def shifted(self, pixels: Array) -> Array:
        """Float32 [3, rows, columns] from 0 to 255 to what the model reads."""
        how = self.scaling
        mean, deviation = (np.array(each, np.float32)[:, None, None] for each in (how.mean, how.deviation))
        return np.asarray((pixels * np.float32(how.rescale) - mean) / deviation)


@dataclass(frozen=True, slots=True)
class Taps:
    """For each place of a resized axis: the first of the old ones that it sums, and float32 weights from there on."""

    starts: Array
    weights: Array


def taps(length: int, wanted: int) -> Taps:
    """Blur and interpolation of one axis of `length` pixels that becomes `wanted` pixels long."""
    shrinks = length / wanted
    deviation = max(0.0, (shrinks - 1) / 2)
    radius = int(BLUR_ENDS * deviation + 0.5)
    reach = np.arange(-radius, radius + 1)
    blur = np.exp(-0.5 * (reach / deviation) ** 2) if radius else np.ones(1)
    blur /= blur.sum()
    centres = (np.arange(wanted) + 0.5) * shrinks - 0.5
    left = np.floor(centres).astype(np.int64)
    share = (centres - left)[:, None]
    # The blur around the pixel at the left, and around its right neighbour, by their shares.
    weights = np.pad((1 - share) * blur, ((0, 0), (0, 1))) + np.pad(share * blur, ((0, 0), (1, 0)))
    places = _mirrored(left[:, None] + np.arange(-radius, radius + 2), length)
    starts = places.min(axis=1)
    offsets = places - starts[:, None]
    folded = np.zeros((wanted, int(offsets.max()) + 1))
    np.add.at(folded, (np.arange(wanted)[:, None], offsets), weights)
    return Taps(starts, folded.astype(np.float32))


def read_squaring(folder: Path) -> Squaring:
    """From `preprocessor_config.json`.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_config(folder)
    expect(config, "do_pad", True, default=True)
    return read_numbers("detector's preprocessor", lambda: Squaring(read_sides(config["size"]), read_scaling(config)))


def _squared(image: Image.Image, how: Squaring) -> Squared:
    width, height = image.size
    side = max(width, height)
    if side > MAX_SIDE:
        raise too_narrow(width, height)
    down, across = (taps(side, wanted) for wanted in how.size)
    rows = _resized(np.asarray(image), down)
    columns = _resized(rows.transpose(1, 0, 2), across)
    return Squared(how.shifted(columns.transpose(2, 1, 0)), width, height)


def _resized(pixels: Array, axis: Taps) -> Array:
    """[pixels, a, b] to float32 [those of the new ones that see any, a, b]; beyond the last pixel is padding."""
    length = len(pixels)
    flat = np.ascontiguousarray(pixels).reshape(length, -1)
    seeing = int(np.searchsorted(axis.starts, length))
    found = np.empty((seeing, flat.shape[1]), np.float32)
    for at in range(seeing):
        seen = flat[axis.starts[at] :][: axis.weights.shape[1]]
        np.dot(axis.weights[at, : len(seen)], seen.astype(np.float32, copy=False), out=found[at])
    return found.reshape(seeing, *pixels.shape[1:])


def _mirrored(places: Array, length: int) -> Array:
    """Places beyond an end, counted back from it; the last pixel itself is there once."""
    if length == 1:
        return np.zeros_like(places)
    around = np.mod(places, 2 * (length - 1))
    return np.asarray(np.minimum(around, 2 * (length - 1) - around))
