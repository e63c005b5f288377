"""How large encoded images are, by their headers alone. Needs no torch, so that the engine may ask."""

import io
from collections.abc import Iterable
from typing import Final

from PIL import Image

from sie_server.adapters.base import Picture

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
UNREADABLE: Final = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises for what is no image


def pixels_of(pictures: Iterable[Picture]) -> int:
    """Pixels of all of them; what is no image has none, and whoever decodes it says so."""
    return sum(map(_pixels, pictures))


def _pixels(picture: Picture) -> int:
    try:
        with Image.open(io.BytesIO(picture.data), formats=FORMATS) as image:
            width, height = image.size
    except UNREADABLE:
        return 0
    return width * height
