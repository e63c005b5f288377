import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from served_worker import BOUND_S, Served, served, write_catalog
from sie_protocol.arrays import Array, decode_reply
from sie_protocol.headers import JSON, MSGPACK
from tiny_vision import WIDTH, oracle_images, oracle_texts, picture, write_clip

M, TEXT_ONLY = "org/clip", "org/hash"
MOST_PIXELS = 101_000_000
IMAGES = [picture(40, 40, 1), picture(60, 35, 2, "JPEG")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("vision") / "clip")


@pytest.fixture
async def worker(tmp_path: Path, clip: Path) -> Any:
    own = {
        "adapter": "vision",
        "weights_path": str(clip),
        "inputs": {"text": True, "image": True},
        "tasks": {"encode": {"dense": {"dim": WIDTH}}},
    }
    async with served(write_catalog(tmp_path, {M: own, TEXT_ONLY: {}}), max_request_pixels=MOST_PIXELS) as each:
        await each.encode(M, "load it")
        await each.encode(TEXT_ONLY, "load it")
        yield each


async def encode(worker: Served, items: list[dict[str, Any]], model: str = M) -> httpx.Response:
    body, head = msgspec.msgpack.encode({"items": items}), {"content-type": MSGPACK, "accept": MSGPACK}
    async with asyncio.timeout(BOUND_S):
        return await worker.http.post(f"/v1/encode/{model}", content=body, headers=head)


def dense(reply: httpx.Response) -> Array:
    assert reply.status_code == 200, reply.text
    return np.stack([item["dense"]["values"] for item in decode_reply(reply.content)["items"]])


async def test_texts_and_images_mix_in_one_request_and_keep_its_order(worker: Served, clip: Path) -> None:
    first_image, second_image = ({"images": [{"data": each, "format": None}]} for each in IMAGES)
    items: list[dict[str, Any]] = [first_image, {"text": "a red car"}, second_image]
    found = dense(await encode(worker, items))
    first, second = oracle_images(clip, IMAGES)
    np.testing.assert_allclose(found, [first, oracle_texts(clip, ["a red car"])[0], second], atol=1e-5)


async def test_several_images_of_an_item_give_the_mean_of_their_vectors(worker: Served, clip: Path) -> None:
    items = [{"images": [{"data": each} for each in IMAGES]}, {"images": [{"data": IMAGES[0]}]}]
    found = dense(await encode(worker, items))
    vectors = oracle_images(clip, IMAGES)
    np.testing.assert_allclose(found, [vectors.mean(0), vectors[0]], atol=1e-5)


async def test_json_carries_images_as_base64(worker: Served, clip: Path) -> None:
    data = base64.b64encode(IMAGES[0]).decode()
    reply = await worker.http.post(
        f"/v1/encode/{M}", json={"items": [{"images": [{"data": data}]}]}, headers={"accept": JSON}
    )
    found = reply.json()["items"][0]["dense"]["values"]
    np.testing.assert_allclose(found, oracle_images(clip, IMAGES[:1])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("item", "model", "says"),
    [
        (
            {"images": [{"data": b"no image"}]},
            M,
            "item 1: an image cannot be read (no format that is known); send one of: PNG, ",
        ),
        ({"images": [{"data": picture(10_000, 10_000, mode="1")}]}, M, "the limit is 40000000"),
        ({"images": [{"data": picture(1_000_000, 1, mode="1")}]}, M, "1000000 x 1 pixels is too long and narrow"),
        ({"images": [{"data": IMAGES[0]}, {"data": b""}]}, M, "item 1: an image cannot be read"),
        ({"images": [{"data": IMAGES[0]}], "text": "and this"}, M, "item 1 has both a text and images"),
        ({"images": [{"data": IMAGES[0]}]}, TEXT_ONLY, "reads text only"),
        ({"images": []}, M, "has no text or images"),
    ],
)
async def test_an_item_that_cannot_be_read_is_one_clear_refusal(
    worker: Served, item: dict[str, Any], model: str, says: str
) -> None:
    good = {"text": "a"} if model == TEXT_ONLY else {"images": [{"data": each} for each in IMAGES[:2]]}
    reply = await encode(worker, [good, item], model)
    assert (reply.status_code, reply.headers["x-sie-error-code"]) == (400, "INVALID_INPUT")
    assert says in reply.json()["error"]["message"]
    assert reply.json()["error"]["item"] == 1


async def test_too_many_images_of_one_item_are_refused_with_the_limit(worker: Served) -> None:
    reply = await encode(worker, [{"images": [{"data": b""}] * 65}])
    assert (reply.status_code, reply.headers["x-sie-error-code"]) == (413, "INPUT_TOO_LONG")
    assert "the limit is 64" in reply.json()["error"]["message"]


async def test_images_of_too_many_pixels_in_all_are_refused_before_any_is_decoded(worker: Served) -> None:
    small_file, broken = picture(6000, 6000, mode="1"), b"\x89PNG\r\n\x1a\n"
    items = [{"images": [{"data": broken}]}, *[{"images": [{"data": small_file}]}] * 3]
    reply = await encode(worker, items)  # the first one would be refused otherwise, and with another code
    assert (reply.status_code, reply.headers["x-sie-error-code"]) == (413, "INPUT_TOO_LONG")
    assert f"have 108000000 pixels, the limit is {MOST_PIXELS}" in reply.json()["error"]["message"]
