"""Images as users have them, to images as the wire has them: encoded bytes and the name of their format.

Files and encoded bytes travel as they are. Pillow images and arrays become PNG, which keeps every pixel; only they need
Pillow (`pip install "sie-sdk[images]"`).
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sie_protocol.items import Image
from sie_protocol.items import Item as WireItem

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

FORMATS: Final = ("jpeg", "png", "gif", "webp", "bmp", "tiff")
_MAGIC: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_COLOUR_MODES: Final = frozenset({"CMYK", "YCbCr", "HSV", "LAB", "RGBX", "PA", "La", "RGBa"})
_CHANNELS: Final = (1, 3, 4)
_FAST: Final = 1  # PNG compression: a photo in tenths of a second instead of seconds


def wire_items(items: Iterable[Mapping[str, Any]]) -> list[WireItem]:
    """The items with their images as the wire has them; items without images are passed on as they are.

    Raises:
        TypeError: something is no image.
        ValueError: the bytes, the pixels or the mode are those of no image that can be sent.
        OSError: a file cannot be read.
    """
    return [item if item.get("images") is None else _with_images(at, item) for at, item in enumerate(items)]  # type: ignore[misc]  # what users write


def wire_image(image: Any) -> Image:
    """One image: its path, its bytes, an open file, a Pillow image, an array, or `{"data": ..., "format": ...}`.

    An array has shape [height, width] or [height, width, 1 | 3 | 4] and either uint8 values or floats from 0 to 1.
    """
    match image:
        case {"data": data}:
            return _encoded(_bytes(data), image.get("format"))
        case str() if "://" in image[:16]:
            raise ValueError(f"'{image:.80}' is an address; load the image first and pass its bytes")
        case str() if image[:5].lower() == "data:":
            raise ValueError(f"'{image:.40}' is a data: URL; pass its bytes: base64.b64decode(url.partition(',')[2])")
        case str() | os.PathLike():
            return _encoded(_content(Path(image)), None, f" in '{image}'")
        case bytes() | bytearray() | memoryview():
            return _encoded(bytes(image), None)
        case _ if _is_array(image):
            return _png(_from_array(image))
    if callable(getattr(image, "read", None)):
        return _encoded(_bytes(image.read()), None)
    if hasattr(image, "mode") and callable(getattr(image, "save", None)):
        return _png(image)
    raise TypeError(
        f"a {type(image).__name__} is no image; pass a path, bytes, an open file, a Pillow image or a numpy array"
    )


def sniffed(data: bytes) -> str | None:
    """The format that the first bytes say, one of `FORMATS`, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def _with_images(at: int, item: Mapping[str, Any]) -> WireItem:
    images = item["images"]
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise TypeError(
            f"items[{at}]: images is a list of images, for example ['cat.jpg'], not {type(images).__name__}"
        )
    encoded = [_placed(image, f"items[{at}]['images'][{place}]") for place, image in enumerate(images)]
    return {**item, "images": encoded}  # type: ignore[typeddict-item]  # what users write


def _placed(image: Any, where: str) -> Image:
    try:
        return wire_image(image)
    except (TypeError, ValueError, OSError) as error:
        kinds = (FileNotFoundError, OSError, TypeError, ValueError)  # not the kinds below, made of other arguments
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"{where}: {error}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no image file '{path}' in {Path.cwd()}; a str is a path") from error
    except OSError as error:
        raise OSError(f"the image file '{path!s:.200}' cannot be read: {error.strerror or error}") from error


def _bytes(data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"the data of an image is {type(data).__name__}, not bytes; open files in binary mode")
    return bytes(data)


def _encoded(data: bytes, said: str | None, where: str = "") -> Image:
    """What the bytes say beats what the caller says; what cannot be told needs to be said."""
    name = sniffed(data) or said
    if name is None:
        found = f"they begin with {data[:8]!r}" if data else "there are none"
        raise ValueError(f"the bytes of an image{where} are none of {', '.join(FORMATS)}: {found}")
    return {"data": data, "format": name}


def _png(image: "PillowImage") -> Image:
    if image.mode not in _PNG_MODES:
        if image.mode not in _COLOUR_MODES:
            raise ValueError(
                f"a Pillow image of mode '{image.mode}' has no agreed brightness; convert it to 'L' or 'RGB' first"
            )
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    stream = BytesIO()
    image.save(stream, format="PNG", compress_level=_FAST)
    return {"data": stream.getvalue(), "format": "png"}


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # whoever has an array has imported it
    return numpy is not None and isinstance(value, numpy.ndarray)


def _from_array(array: "np.ndarray[Any, Any]") -> "PillowImage":
    try:
        from PIL import Image as Pillow  # noqa: PLC0415 - an extra, needed here only
    except ImportError as error:
        raise ImportError('images given as arrays need Pillow: pip install "sie-sdk[images]"') from error
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)  # noqa: PLR2004 - grey, colour
    if not is_image or not array.size:
        raise ValueError(
            f"an array of shape {array.shape} is no image; expected [height, width] or [height, width, 1, 3 or 4]"
        )
    pixels = _as_bytes(array)
    return Pillow.fromarray(pixels[:, :, 0] if pixels.ndim > 2 and pixels.shape[2] == 1 else pixels)  # noqa: PLR2004 - grey with an axis


def _as_bytes(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    import numpy as np  # noqa: PLC0415 - the caller of the SDK has it, or there were no array

    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "f":
        raise ValueError(f"an image of dtype {array.dtype} cannot be sent; expected uint8, or floats from 0 to 1")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # also where some are no numbers
        raise ValueError(f"an image of floats has values from {low:g} to {high:g}; expected 0 to 1, or uint8")
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(array.astype(np.float32) * 255.0).astype(np.uint8)
    return pixels
