"""Encoded images to the pixels that a vision model reads, as its `preprocessor_config.json` says. Runs on the CPU."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture, UnreadableImageError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.weights import read_json

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# 40 megapixels are 120 MB of decoded memory; what a camera of today takes fits, a small file that unfolds does not.
MAX_PIXELS: Final = 40_000_000

T = TypeVar("T")

# Pillow's own bound warns on standard error and knows no request; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes pixels: resized (shorter side, or both sides), perhaps cropped, later shifted and scaled.

    `size` is (height, width); with `crop` the shorter side becomes `resize` and the centre of that size is cut out.
    """

    size: tuple[int, int]
    crop: bool
    resize: int
    resample: Image.Resampling
    rescale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def read(self, picture: Picture) -> Array:
        """Pixels [height, width, 3] as uint8.

        Raises:
            UnreadableImageError: as `read_image`, and when it is too long and narrow.
        """
        return read_image(picture, lambda image: np.asarray(self._fitted(image)))

    def _fitted(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if not self.crop:
            return image.resize((width, height), self.resample)
        shorter = min(image.size)
        across, down = (self.resize if side == shorter else int(self.resize * side / shorter) for side in image.size)
        if across * down > MAX_PIXELS:
            raise too_narrow(*image.size)
        resized = image.resize((across, down), self.resample)
        left, top = (across - width) // 2, (down - height) // 2
        return resized.crop((left, top, left + width, top + height))


class Levels(Protocol):
    """What is done to the numbers of pixels, by a preprocessor of any kind."""

    @property
    def rescale(self) -> float:
        """The factor of every number."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each colour, after that."""

    @property
    def deviation(self) -> tuple[float, ...]:
        """The same."""


def shifted(pixels: torch.Tensor, how: Levels) -> torch.Tensor:
    """[images, height, width, 3] of uint8 to [images, 3, height, width] as the model saw them in training."""
    mean, deviation = (torch.tensor(each, device=pixels.device) for each in (how.mean, how.deviation))
    return ((pixels.float() * how.rescale - mean) / deviation).permute(0, 3, 1, 2)


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
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        known = ", ".join(FORMATS)
        raise UnreadableImageError(f"an image cannot be read ({error}); send one of: {known}") from error


def too_narrow(width: int, height: int) -> UnreadableImageError:
    """The refusal of an image that would take too much memory in the shape that a model reads."""
    return UnreadableImageError(f"an image of {width} x {height} pixels is too long and narrow; cut it")


def read_preprocessing(folder: Path) -> Preprocessing:
    """From `preprocessor_config.json`.

    Raises:
        LoadError: it is missing, incomplete, or asks for steps that are not done here.
    """
    config = read_json(folder / "preprocessor_config.json")
    for step in ("do_resize", "do_rescale", "do_normalize"):
        expect(config, step, True, default=True)

    def read() -> Preprocessing:
        crop = bool(config.get("do_center_crop", "crop_size" in config))
        size = config["crop_size"] if crop else config["size"]
        return Preprocessing(
            size=read_sides(size),
            crop=crop,
            resize=_shorter(config["size"]),
            resample=Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC))),
            rescale=float(config.get("rescale_factor", 1 / 255)),
            mean=tuple(map(float, config["image_mean"])),
            deviation=tuple(map(float, config["image_std"])),
        )

    return read_numbers("vision model's preprocessor", read)


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
