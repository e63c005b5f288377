"""Encoded images to the pixels that a vision model reads, as its `preprocessor_config.json` says. Runs on the CPU."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture, UnreadableImageError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.pixels import FORMATS, UNREADABLE
from sie_server.adapters.shared.weights import read_json

# 40 megapixels are 120 MB of decoded memory; what a camera of today takes fits, a small file that unfolds does not.
MAX_PIXELS: Final = 40_000_000
# An image that keeps its shape is at most so many times as long as it is wide: Qwen2-VL's own rule.
LONGEST_SHAPE: Final = 200

T = TypeVar("T")

# Pillow's own bound warns on standard error and knows no request; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What becomes of a pixel's number: multiplied, then shifted and scaled by what its colour has in the mean."""

    rescale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes pixels: resized (shorter side, or both sides), perhaps cropped, later scaled.

    `size` is (height, width); with `crop` the shorter side becomes `resize` and the centre of that size is cut out.
    """

    size: tuple[int, int]
    crop: bool
    resize: int
    resample: Image.Resampling
    scaling: Scaling

    def read(self, picture: Picture) -> Array:
        """Pixels [height, width, 3] as uint8.

        Raises:
            UnreadableImageError: as `read_image`, and when it is too long and narrow.
        """
        return _pixels(picture, self.fitted)

    def fitted(self, image: Image.Image) -> Image.Image:
        """The image as the model reads it.

        Raises:
            UnreadableImageError: it is too long and narrow.
        """
        height, width = self.size
        if not self.crop:
            return image.resize((width, height), self.resample)
        resized = with_shorter_side(image, self.resize, self.resample)
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return resized.crop((left, top, left + width, top + height))


@dataclass(frozen=True, slots=True)
class FreeShape:
    """How an image becomes pixels and keeps its shape: both sides are multiples of `step`, its area has bounds.

    `least` and `most` are pixels; an image between them is resized to the nearest multiples only. Published with
    Qwen2-VL (Wang et al. 2024).
    """

    step: int
    least: int
    most: int
    resample: Image.Resampling
    scaling: Scaling

    def read(self, picture: Picture) -> Array:
        """Pixels [height, width, 3] as uint8, at most `most` of them.

        Raises:
            UnreadableImageError: as `read_image`, and when it is too long and narrow to keep its shape.
        """
        return _pixels(picture, self._fitted)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this height and width gets."""
        fitted = [round(side / self.step) * self.step for side in (height, width)]
        area = fitted[0] * fitted[1]
        if area > self.most:
            smaller = math.sqrt(height * width / self.most)
            fitted = [max(1, math.floor(side / smaller / self.step)) * self.step for side in (height, width)]
        elif area < self.least:
            larger = math.sqrt(self.least / (height * width))
            fitted = [math.ceil(side * larger / self.step) * self.step for side in (height, width)]
        return fitted[0], fitted[1]

    def _fitted(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        down, across = self.size(height, width)
        if max(image.size) > LONGEST_SHAPE * min(image.size) or down * across > self.most:
            raise too_narrow(*image.size)
        return image.resize((across, down), self.resample)


def _pixels(picture: Picture, fit: Callable[[Image.Image], Image.Image]) -> Array:
    return read_image(picture, lambda image: np.array(fit(image)))  # a copy: torch refuses Pillow's read-only memory


def read_image(picture: Picture, fit: Callable[[Image.Image], T]) -> T:
    """What `fit` makes of the decoded image, in RGB, as its file stores it: a rotation in EXIF changes nothing.

    Raises:
        UnreadableImageError: it is no image of a known format, is broken, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(picture.data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"an image has {width} x {height} pixels, the limit is {MAX_PIXELS}; make it smaller"
                )
            return fit(image.convert("RGB"))
    except UNREADABLE as error:
        known = ", ".join(FORMATS)
        # Pillow's words for what it does not know are the object that it was given, with its address.
        why = "no format that is known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableImageError(f"an image cannot be read ({why}); send one of: {known}") from error


def with_shorter_side(image: Image.Image, length: int, resample: Image.Resampling) -> Image.Image:
    """The image in its proportions, with a shorter side of this length.

    Raises:
        UnreadableImageError: it is too long and narrow.
    """
    shorter = min(image.size)
    across, down = (length if side == shorter else int(length * side / shorter) for side in image.size)
    if across * down > MAX_PIXELS:
        raise too_narrow(*image.size)
    return image.resize((across, down), resample)


def too_narrow(width: int, height: int) -> UnreadableImageError:
    """The refusal of an image that would take too much memory in the shape that a model reads."""
    return UnreadableImageError(f"an image of {width} x {height} pixels is too long and narrow; cut it")


def read_preprocessing(folder: Path) -> Preprocessing:
    """From `preprocessor_config.json`, or `image_processor` of `processor_config.json`, where newer folders have it.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_config(folder)

    def read() -> Preprocessing:
        crop = bool(config.get("do_center_crop", "crop_size" in config))
        size = config["crop_size"] if crop else config["size"]
        return Preprocessing(
            read_sides(size), crop, _shorter(config["size"]), read_resampling(config), read_scaling(config)
        )

    return read_numbers("vision model's preprocessor", read)


def read_free_shape(folder: Path, step: int, most: int) -> FreeShape:
    """The same for images that keep their shape; no image gets more than `most` pixels, whatever the file says.

    Raises:
        LoadError: as `read_preprocessing`.
    """
    config = read_config(folder)

    def read() -> FreeShape:
        size = config.get("size") or {}
        smallest, largest = (
            int(config.get(f"{name}_pixels") or size.get(edge) or size[f"{name}_pixels"])
            for name, edge in (("min", "shortest_edge"), ("max", "longest_edge"))
        )
        return FreeShape(step, min(smallest, most), min(largest, most), read_resampling(config), read_scaling(config))

    return read_numbers("vision model's preprocessor", read)


def read_config(folder: Path) -> dict[str, Any]:
    """What a model's folder says of its images.

    Raises:
        LoadError: it says nothing, or asks for steps that are not done here.
    """
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    nested = read_json(whole).get("image_processor") if whole.is_file() and not own.is_file() else None
    config = nested if isinstance(nested, dict) else read_json(own)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        expect(config, step, True, default=True)
    return config


def read_resampling(
    config: Mapping[str, Any], default: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Resampling:
    """How pixels are made of others.

    Raises:
        ValueError: Pillow knows no such way.
    """
    return Image.Resampling(int(config.get("resample", default)))


def read_scaling(config: Mapping[str, Any]) -> Scaling:
    """What becomes of a pixel's number.

    Raises:
        KeyError, TypeError, ValueError: it does not say.
    """
    mean, deviation = (tuple(map(float, config[key])) for key in ("image_mean", "image_std"))
    return Scaling(float(config.get("rescale_factor", 1 / 255)), mean, deviation)


def read_sides(size: Mapping[str, Any] | int) -> tuple[int, int]:
    """(height, width) of a `size` in a preprocessor's configuration.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _shorter(size: Mapping[str, Any] | int) -> int:
    if isinstance(size, int):
        return size
    return int(size["shortest_edge"]) if "shortest_edge" in size else min(read_sides(size))
