"""Encoded images to the pixels that a vision model reads, as its `preprocessor_config.json` says. Runs on the CPU."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture, UnsupportedInputError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.pixels import FORMATS, UNREADABLE
from sie_server.adapters.shared.weights import read_json

# 40 megapixels are 120 MB of decoded memory; what a camera of today takes fits, a small file that unfolds does not.
MAX_PIXELS: Final = 40_000_000

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
            UnsupportedInputError: it is no image of a known format, is broken, or has too many pixels.
        """
        try:
            with Image.open(io.BytesIO(picture.data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise UnsupportedInputError(
                        f"an image has {width} x {height} pixels, the limit is {MAX_PIXELS}; make it smaller"
                    )
                return np.asarray(self._fitted(image.convert("RGB")))
        except UNREADABLE as error:
            known = ", ".join(FORMATS)
            raise UnsupportedInputError(f"an image cannot be read ({error}); send one of: {known}") from error

    def _fitted(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if not self.crop:
            return image.resize((width, height), self.resample)
        shorter = min(image.size)
        across, down = (self.resize if side == shorter else int(self.resize * side / shorter) for side in image.size)
        if across * down > MAX_PIXELS:
            width, height = image.size
            raise UnsupportedInputError(f"an image of {width} x {height} pixels is too long and narrow; cut it")
        resized = image.resize((across, down), self.resample)
        left, top = (across - width) // 2, (down - height) // 2
        return resized.crop((left, top, left + width, top + height))


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
            size=_sides(size),
            crop=crop,
            resize=_shorter(config["size"]),
            resample=Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC))),
            rescale=float(config.get("rescale_factor", 1 / 255)),
            mean=tuple(map(float, config["image_mean"])),
            deviation=tuple(map(float, config["image_std"])),
        )

    return read_numbers("vision model's preprocessor", read)


def _sides(size: Mapping[str, Any] | int) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _shorter(size: Mapping[str, Any] | int) -> int:
    if isinstance(size, int):
        return size
    return int(size["shortest_edge"]) if "shortest_edge" in size else min(_sides(size))
