"""Images in extract requests: what is in each, in JSON and msgpack, and what is refused in whose place."""

import base64
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import finder_adapter
from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON, MSGPACK
from sie_server.adapters.registry import ADAPTERS
from tiny_owlv2 import owlv2_oracle, write_owlv2
from tiny_vision import picture
from wire_answers import error_of, patiently

FINDER, TEXTS, OWL = "org/finder", "org/texts", "org/owl"
NOTHING: dict[str, Any] = {"entities": [], "relations": [], "classifications": [], "objects": [], "data": {}}
READS_IMAGES = {"inputs": {"text": False, "image": True}, "tasks": {"extract": {}}}


def image(data: bytes) -> dict[str, Any]:
    return {"images": [{"data": data}]}


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    models: dict[str, dict[str, Any]] = {
        FINDER: {"adapter": "finder", "options": {"gives": "objects"}, **READS_IMAGES},
        TEXTS: {"adapter": "finder", "tasks": {"extract": {}}},
    }
    adapters = {**ADAPTERS, **finder_adapter.ADAPTERS}
    async with served(write_catalog(tmp_path, models, adapters), adapters, max_queue_items=300) as each:
        yield each


async def send(worker: Served, model: str, items: list[Any], **params: Any) -> httpx.Response:
    """One msgpack call, as SDKs send it."""
    body = msgspec.msgpack.encode({"items": items, "params": {"labels": ["cat"], **params}})
    head = {"content-type": MSGPACK, "accept": JSON}
    return await patiently(lambda: worker.http.post(f"/v1/extract/{model}", content=body, headers=head))


async def extract(worker: Served, model: str, items: list[Any], **params: Any) -> Any:
    reply = await send(worker, model, items, **params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_every_image_has_its_objects_and_every_list(worker: Served) -> None:
    answer = await extract(worker, FINDER, [image(b"a cat"), {"id": "x", **image(b"none")}])
    cat = {"label": "cat", "score": 1.0, "bbox": [2.0, 0.0, 3.0, 1.0]}
    assert answer == {
        "model": FINDER,
        "items": [{**NOTHING, "id": "item-0", "objects": [cat]}, {**NOTHING, "id": "x"}],
        "usage": {"input_tokens": 3, "truncated_items": 0},
    }


async def test_json_carries_images_as_base64_and_msgpack_answers_the_same(worker: Served) -> None:
    await extract(worker, FINDER, [image(b"load it")])
    data = base64.b64encode(b"a cat").decode()
    body = {"items": [{"images": [{"data": data}]}], "params": {"labels": ["cat"]}}
    replies = [
        await worker.http.post(f"/v1/extract/{FINDER}", json=body, headers={"accept": accept})
        for accept in (JSON, MSGPACK)
    ]
    assert msgspec.msgpack.decode(replies[1].content)["items"] == replies[0].json()["items"]
    assert replies[0].json()["items"][0]["objects"][0]["bbox"] == [2.0, 0.0, 3.0, 1.0]


async def test_what_cannot_be_read_is_refused_in_its_place_and_the_others_are_answered(worker: Served) -> None:
    items = [image(b"cat %d" % at) for at in range(100)]
    wrong: dict[int, tuple[dict[str, Any], str]] = {
        7: (image(b"\xff"), "item 7: an image cannot be read"),
        30: ({"text": "a cat"}, f"item 30 has a text, but model '{FINDER}' reads images only"),
        31: ({}, f"item 31 has no images, which model '{FINDER}' needs"),
        50: ({"text": "a", **image(b"cat")}, "item 50 has both a text and images"),
        99: ({"images": [{"data": b"cat"}] * 2}, "item 99 has 2 images; send each as an item of its own"),
    }
    for at, (item, _) in wrong.items():
        items[at] = item
    found = (await extract(worker, FINDER, items))["items"]
    for at, each in enumerate(found):
        if at in wrong:
            assert each["error"]["code"] == "INVALID_INPUT"
            assert wrong[at][1] in each["error"]["message"]
            assert not each["objects"]
        else:
            assert [one["bbox"] for one in each["objects"]] == [[0.0, 0.0, 3.0, 1.0]], at


async def test_a_model_of_texts_refuses_an_image_and_reads_the_texts(worker: Served) -> None:
    bad, good = (await extract(worker, TEXTS, [image(b"cat"), {"text": "cat"}]))["items"]
    assert bad["error"]["message"] == f"item 0 has images, but model '{TEXTS}' reads text only"
    assert len(good["entities"]) == 1


@pytest.mark.parametrize(
    ("items", "params", "code", "says"),
    [
        ([image(b"a")] * 301, {}, "INPUT_TOO_LONG", "301 items, the limit is 300"),
        ([image(b"a"), image(b"b")], {"labels": ["unknown"]}, "INVALID_INPUT", "none of its labels"),
        ([image(b"a")] * 3 + [image(b"broken")], {"labels": ["o"]}, "INFERENCE_ERROR", "item 3"),
        ([image(b"a")] * 3 + [image(b"endless")], {"labels": ["e"]}, "INFERENCE_ERROR", "item 3"),
        ([image(b"a")], {"options": {"score_threshold": 2}}, "INVALID_INPUT", "from 0 to 1"),
        ([image(b"a")], {"options": {"nms_threshold": "no"}}, "INVALID_INPUT", "from 0 to 1"),
        ([image(b"a")], {"options": {"max_objects": 0}}, "INVALID_INPUT", "objects, 1 to"),
        ([image(b"a")], {"options": {"label_template": "a photo"}}, "INVALID_INPUT", "exactly one {}"),
    ],
)
async def test_what_is_wrong_with_all_items_or_the_model_refuses_the_request(
    worker: Served, items: list[Any], params: dict[str, Any], code: str, says: str
) -> None:
    error = error_of(await send(worker, FINDER, items, **params))
    assert error["code"] == code
    assert says in error["message"]


async def test_a_real_png_has_the_objects_that_transformers_finds(tmp_path: Path) -> None:
    folder = write_owlv2(tmp_path / "model")
    own = {"adapter": "owlv2", "weights_path": str(folder), "options": {"score_threshold": 0.2}, **READS_IMAGES}
    png, labels = picture(60, 60, 1), ["a cat", "red car"]
    wanted = owlv2_oracle(folder)(png, labels, 0.2)
    async with served(write_catalog(tmp_path / "catalog", {OWL: own})) as worker:
        answer = await extract(worker, OWL, [image(png), image(png[:90])], labels=labels)
        few = await extract(worker, OWL, [image(png)], labels=labels, options={"max_objects": 1})
    objects = answer["items"][0]["objects"]
    assert [each["label"] for each in objects] == [label for label, _, _ in wanted]
    assert [each["score"] for each in objects] == pytest.approx([score for _, score, _ in wanted], abs=1e-5)
    for each, (_, _, (left, top, _, _)) in zip(objects, wanted, strict=True):
        assert each["bbox"][:2] == pytest.approx([max(left, 0), max(top, 0)], abs=1e-3)
    assert "cannot be read" in answer["items"][1]["error"]["message"]
    assert few["items"][0]["objects"] == objects[:1]
