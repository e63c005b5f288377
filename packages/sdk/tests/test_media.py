from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import sdk_answers as published
from sdk_clients import Open
from sdk_server import Serve
from sie_sdk.media import FORMATS, sniffed, wire_image, wire_items

RED = Image.new("RGB", (3, 2), (255, 0, 0))
PIXELS = np.array([[[255, 0, 0]] * 3] * 2, np.uint8)


def encoded(name: str, image: Image.Image = RED) -> bytes:
    stream = BytesIO()
    image.save(stream, format=name)
    return stream.getvalue()


def pixels_of(wired: Any) -> np.ndarray[Any, Any]:
    with Image.open(BytesIO(wired["data"])) as image:
        assert image.format is not None
        assert image.format.lower() == wired["format"]
        return np.asarray(image)


@pytest.mark.parametrize("name", FORMATS)
def test_encoded_bytes_travel_unchanged_under_the_name_of_their_format(name: str, tmp_path: Path) -> None:
    data = encoded(name)
    file = tmp_path / "image.dat"
    file.write_bytes(data)
    wanted = {"data": data, "format": name}
    with file.open("rb") as opened:
        forms: list[Any] = [data, bytearray(data), memoryview(data), file, str(file), BytesIO(data), opened]
        forms += [{"data": data}, {"data": data, "format": "wrong"}]
        assert [wire_image(form) for form in forms] == [wanted] * len(forms)


@given(arrays(np.uint8, st.sampled_from([(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4), (1, 1)])))
def test_pixels_of_an_array_arrive_as_they_are(array: np.ndarray[Any, Any]) -> None:
    assert pixels_of(wire_image(array)).tolist() == (array[:, :, 0] if array.shape[2:] == (1,) else array).tolist()


@given(arrays(np.float32, (3, 4, 3), elements=st.floats(0, 1, width=32)))
def test_floats_are_brightness_from_0_to_1(array: np.ndarray[Any, Any]) -> None:
    found = pixels_of(wire_image(array))
    assert np.abs(found / 255.0 - array).max() <= 0.5 / 255 + 1e-6


def test_views_and_truth_values_are_images_too() -> None:
    assert pixels_of(wire_image(PIXELS[::-1, ::2])).tolist() == PIXELS[::-1, ::2].tolist()
    assert pixels_of(wire_image(np.array([[True, False]]))).tolist() == [[255, 0]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_pillow_image_keeps_its_pixels(mode: str) -> None:
    image = RED.convert(mode)
    found = wire_image(image)
    with Image.open(BytesIO(found["data"])) as back:
        assert np.asarray(back.convert("RGBA")).tolist() == np.asarray(image.convert("RGBA")).tolist()


def test_other_colour_spaces_become_red_green_blue() -> None:
    assert pixels_of(wire_image(RED.convert("CMYK"))).tolist() == PIXELS.tolist()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "there are none"),
        (b"not an image", "begin with b'not an i'"),
        ("https://example.com/cat.jpg", "is an address"),
        (np.zeros((2, 3, 2), np.uint8), r"shape \(2, 3, 2\)"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((2, 2), np.int64), "dtype int64"),
        (np.full((2, 2), 1.5), "from 1.5 to 1.5"),
        (np.full((2, 2), np.nan), "from nan"),
        (RED.convert("F"), "mode 'F'"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(image: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wire_image(image)


@pytest.mark.parametrize("image", [None, 5, object(), {"format": "png"}, {"data": "text"}, BytesIO])
def test_things_of_another_kind_are_refused_by_their_type(image: Any) -> None:
    with pytest.raises(TypeError):
        wire_image(image)
    with pytest.raises(TypeError, match="list of images"):
        wire_items([{"images": "cat.jpg"}])
    with pytest.raises(FileNotFoundError, match="cat"):
        wire_image("no/such/cat.jpg")


def test_an_image_that_cannot_be_had_is_told_with_its_place(tmp_path: Path) -> None:
    good = tmp_path / "red.png"
    RED.save(good)
    with pytest.raises(FileNotFoundError, match=r"items\[1\]\['images'\]\[1\]: there is no image file 'cat.jpg'"):
        wire_items([{"text": "a"}, {"images": [good, "cat.jpg"]}])
    with pytest.raises(OSError, match="cannot be read: Is a directory"):
        wire_items([{"images": [tmp_path]}])
    with pytest.raises(ValueError, match=r"items\[0\].*is a data: URL; pass its bytes"):
        wire_items([{"images": ["data:image/png;base64,iVBORw0KGgo="]}])


@given(st.binary(max_size=40))
def test_any_bytes_have_one_of_the_formats_or_none(data: bytes) -> None:
    assert sniffed(data) in (None, *FORMATS)


def test_all_three_calls_send_images_also_as_query(serve: Serve, open_client: Open, tmp_path: Path) -> None:
    file = tmp_path / "red.jpg"
    file.write_bytes(encoded("jpeg"))
    server = serve(published.VECTOR, published.scored(("item-0", 1.0)), published.extracted({}))
    client = open_client(server.url)
    client.encode("org/m", {"images": [file, RED]})
    client.score("org/m", {"images": [PIXELS]}, [{"images": [file]}])
    client.extract("org/m", {"images": [str(file)]})
    encode, score, extract = (seen.decoded for seen in server.seen)
    jpeg = {"data": file.read_bytes(), "format": "jpeg"}
    assert encode["items"][0]["images"] == [jpeg, wire_image(RED)]
    assert (score["query"]["images"], score["items"][0]["images"]) == ([wire_image(PIXELS)], [jpeg])
    assert extract["items"][0]["images"] == [jpeg]
