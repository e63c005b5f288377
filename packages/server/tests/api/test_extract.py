from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import finder_adapter
from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON
from sie_server.adapters.registry import ADAPTERS
from wire_answers import error_of, patiently

FINDER, SHARES, RELATIONS, SHORT = "org/finder", "org/shares", "org/relations", "org/short"
WRITER = "org/writer"
SCHEMA = {"properties": {"cat": {"type": "string"}, "dogs": {"type": "array", "items": {"type": "string"}}}}
BROKEN = {"properties": {"broken": {"type": "string"}}}
NOTHING: dict[str, Any] = {"entities": [], "relations": [], "classifications": [], "objects": [], "data": {}}


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    tasks: dict[str, Any] = {"extract": {}}
    models: dict[str, dict[str, Any]] = {
        FINDER: {"adapter": "finder", "tasks": tasks},
        SHARES: {"adapter": "finder", "tasks": tasks, "options": {"gives": "classifications"}},
        RELATIONS: {
            "adapter": "finder",
            "tasks": {"extract": {"entities": "required"}},
            "options": {"gives": "relations"},
        },
        SHORT: {"adapter": "finder", "tasks": tasks, "max_sequence_length": 3},
        WRITER: {
            "adapter": "finder",
            "tasks": {"extract": {"output_schema": "optional"}},
            "options": {"gives": "data"},
        },
        "org/boast": {"adapter": "finder", "tasks": {"extract": {"output_schema": "optional"}}},
        "org/hash": {},
        "org/wrong": {"tasks": {"encode": {"dense": {"dim": 8}}, "extract": {}}},
    }
    adapters = {**ADAPTERS, **finder_adapter.ADAPTERS}
    async with served(write_catalog(tmp_path, models, adapters), adapters, max_text_chars=200) as each:
        yield each


async def send(worker: Served, model: str, items: list[Any], **params: Any) -> httpx.Response:
    body = {"items": items, "params": params} if params else {"items": items}
    return await patiently(lambda: worker.http.post(f"/v1/extract/{model}", json=body, headers={"accept": JSON}))


async def extract(worker: Served, model: str, items: list[Any], *labels: str, **params: Any) -> Any:
    reply = await send(worker, model, items, labels=list(labels), **params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_every_item_has_every_list_and_an_id(worker: Served) -> None:
    items = [{"text": "a cat"}, {"id": "x", "text": "none"}, {"id": None, "text": "cat, cat"}]
    answer = await extract(worker, FINDER, items, "cat")
    cat = {"text": "cat", "label": "cat", "score": 1.0, "bbox": None}
    assert answer == {
        "model": FINDER,
        "items": [
            {**NOTHING, "id": "item-0", "entities": [{**cat, "start": 2, "end": 5}]},
            {**NOTHING, "id": "x"},
            {**NOTHING, "id": "item-2", "entities": [{**cat, "start": 0, "end": 3}, {**cat, "start": 5, "end": 8}]},
        ],
        "usage": {"input_tokens": 5, "truncated_items": 0},
    }


async def test_classifications_come_best_first(worker: Served) -> None:
    answer = await extract(worker, SHARES, [{"text": "aabbbb"}], "a", "b")
    [item] = answer["items"]
    assert [each["label"] for each in item["classifications"]] == ["b", "a"]
    assert item["classifications"][1]["score"] == pytest.approx(1 / 3)
    assert {key: item[key] for key in NOTHING if key != "classifications"} == {
        key: value for key, value in NOTHING.items() if key != "classifications"
    }


async def test_relations_are_between_the_entities_of_each_item(worker: Served) -> None:
    text = "Ada met Bob in Rome"
    ada, bob, rome = ({"start": at, "end": end, "text": text[at:end]} for at, end in ((0, 3), (8, 11), (15, 19)))
    items = [
        {"text": text, "metadata": {"entities": [ada, bob, rome]}},
        {"text": text, "metadata": {"entities": [ada]}},
        {"id": "x", "text": text},
        {"text": text, "metadata": {"entities": [{**ada, "text": "Bob"}]}},
    ]
    [one, alone, without, wrong] = (await extract(worker, RELATIONS, items, "knows"))["items"]
    found = [(each["head"], each["tail"], each["relation"]) for each in one["relations"]]
    assert found == [("Bob", "Rome", "knows"), ("Ada", "Bob", "knows"), ("Ada", "Rome", "knows")]
    assert [each["score"] for each in one["relations"]] == pytest.approx([1 / 8, 1 / 9, 1 / 16])
    assert {key: one[key] for key in NOTHING if key != "relations"} == {
        key: value for key, value in NOTHING.items() if key != "relations"
    }
    assert alone == {**NOTHING, "id": "item-1"}
    assert without.pop("error")["message"].startswith("item 2 has no metadata.entities")
    assert without == {**NOTHING, "id": "x"}
    assert wrong["error"]["code"] == "INVALID_INPUT"


async def test_data_have_the_form_of_the_schema(worker: Served) -> None:
    items = [{"text": "a cat"}, {"text": "dogs, dogs", "id": "x"}, {}]
    answer = await extract(worker, WRITER, items, output_schema=SCHEMA)
    assert answer["items"][:2] == [
        {**NOTHING, "id": "item-0", "data": {"cat": "cat", "dogs": []}},
        {**NOTHING, "id": "x", "data": {"cat": None, "dogs": ["dogs", "dogs"]}},
    ]
    assert answer["items"][2]["error"]["code"] == "INVALID_INPUT"
    assert answer["items"][2]["data"] == {}


async def test_data_may_tell_how_sure_they_are_and_where_they_stand(worker: Served) -> None:
    answer = await extract(worker, WRITER, [{"text": "a cat"}], output_schema=SCHEMA, options={"evidence": True})
    cat = {"text": "cat", "score": 1.0, "start": 2, "end": 5}
    assert answer["items"] == [{**NOTHING, "id": "item-0", "data": {"cat": cat, "dogs": []}}]


async def test_msgpack_in_and_out_with_timing_and_metrics(worker: Served) -> None:
    await extract(worker, FINDER, [{"text": "a"}], "a")
    reply = await worker.http.post(
        f"/v1/extract/{FINDER}",
        content=msgspec.msgpack.encode({"items": [{"text": "a cat"}], "params": {"labels": ["cat"]}}),
        headers={"content-type": "application/x-msgpack"},
    )
    assert reply.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(reply.content)["items"][0]["entities"][0]["start"] == 2
    for name in ("x-queue-time", "x-tokenization-time", "x-inference-time", "x-total-time"):
        assert float(reply.headers[name]) >= 0
    metrics = (await worker.http.get("/metrics")).text
    assert f'sie_requests_total{{code="200",endpoint="extract",model="{FINDER}",status="success"}} 2.0' in metrics


async def test_one_bad_item_of_a_thousand_is_refused_in_its_place(worker: Served) -> None:
    items: list[dict[str, Any]] = [{"text": f"cat {at}"} for at in range(1000)]
    items[700] = {"id": "bad", "images": [{"data": "aGk="}]}
    answer = (await extract(worker, FINDER, items, "cat"))["items"]
    assert answer[700].pop("error") == {
        "code": "INVALID_INPUT",
        "message": f"item 700 has images, but model '{FINDER}' reads text only",
    }
    assert answer[700] == {**NOTHING, "id": "bad"}
    assert all(len(each["entities"]) == 1 for at, each in enumerate(answer) if at != 700)
    assert not any("error" in each for each in answer)


@pytest.mark.parametrize("task", ["encode", "score"])
async def test_one_bad_item_of_a_thousand_refuses_a_request_for_vectors_and_is_named(worker: Served, task: str) -> None:
    items: list[dict[str, Any]] = [{"text": "a"}] * 1000
    items[700] = {"id": "bad"}
    body = {"items": items, **({"query": {"text": "a"}} if task == "score" else {})}
    error = error_of(await patiently(lambda: worker.http.post(f"/v1/{task}/org/hash", json=body)))
    assert error["code"] == "INVALID_INPUT"
    assert "item 700 has no text" in error["message"]


async def test_a_text_that_may_not_be_cut_is_refused_in_its_place_and_costs_nothing(worker: Served) -> None:
    items = [{"text": "a a"}, {"text": "a a a a"}, {}]
    error = {"overflow_policy": "error"}
    answer = await extract(worker, SHORT, items, "a", options=error)
    assert [item.get("error", {}).get("code") for item in answer["items"]] == [None, "INPUT_TOO_LONG", "INVALID_INPUT"]
    assert "item 1 is longer than model 'org/short' reads" in answer["items"][1]["error"]["message"]
    assert (len(answer["items"][0]["entities"]), answer["items"][1]["entities"]) == (2, [])
    assert answer["usage"] == {"input_tokens": 2, "truncated_items": 0}
    assert (await extract(worker, SHORT, items[1:2], "a", options=error))["usage"]["input_tokens"] == 0
    for policy in ({}, {"overflow_policy": "truncate_text"}):
        assert (await extract(worker, SHORT, items, "a", options=policy))["usage"]["truncated_items"] == 1


async def test_a_request_of_bad_items_only_costs_nothing(worker: Served) -> None:
    answer = await extract(worker, FINDER, [{"text": "a" * 201}, {}], "a")
    assert [each["error"]["code"] for each in answer["items"]] == ["INPUT_TOO_LONG", "INVALID_INPUT"]
    assert answer["usage"] == {"input_tokens": 0, "truncated_items": 0}


@pytest.mark.parametrize(
    ("model", "change", "code", "named"),
    [
        (FINDER, {"items": []}, "INVALID_INPUT", "items is empty"),
        (FINDER, {"items": ["text"]}, "INVALID_INPUT", "items"),
        (FINDER, {"items": [{"text": 5}]}, "INVALID_INPUT", "text"),
        (FINDER, {"params": None}, "INVALID_INPUT", "send params.labels"),
        (FINDER, {"params": {"labels": "cat"}}, "INVALID_INPUT", "labels"),
        (FINDER, {"params": {"labels": ["a", "a"]}}, "INVALID_INPUT", "'a', is there twice"),
        (FINDER, {"params": {"labels": ["unknown"]}}, "INVALID_INPUT", "none of its labels"),
        (FINDER, {"params": {"output_schema": SCHEMA}}, "INVALID_INPUT", "'org/finder' cannot use output_schema"),
        (WRITER, {"params": {"output_schema": {}}}, "INVALID_INPUT", "output_schema.type is None"),
        (WRITER, {"params": {"output_schema": []}}, "INVALID_INPUT", "output_schema"),
        (WRITER, {"params": {"output_schema": SCHEMA, "labels": ["a"]}}, "INVALID_INPUT", "send one of them"),
        (WRITER, {"params": {}}, "INVALID_INPUT", "send params.labels or params.output_schema"),
        (
            WRITER,
            {"params": {"output_schema": SCHEMA, "options": {"evidence": 1}}},
            "INVALID_INPUT",
            "evidence is 1; expected true or false",
        ),
        (
            WRITER,
            {"items": [{"text": "broken cat"}, {"text": "broken"}], "params": {"output_schema": BROKEN}},
            "INFERENCE_ERROR",
            "item 1",
        ),
        ("org/boast", {}, "MODEL_LOAD_FAILED", "adapter 'finder' gives no data"),
        (FINDER, {"params": {"labels": ["a"], "options": {"threshold": 2}}}, "INVALID_INPUT", "from 0 to 1"),
        (FINDER, {"params": {"labels": ["a"], "options": {"top_k": 0}}}, "INVALID_INPUT", "findings, 1 to"),
        (RELATIONS, {"params": None}, "INVALID_INPUT", "send params.labels"),
        (
            FINDER,
            {"params": {"labels": ["a"], "options": {"overflow_policy": "cut"}}},
            "INVALID_INPUT",
            "truncate_text",
        ),
        (FINDER, {"params": {"labels": ["a"], "options": {"new": 1}}}, "INVALID_INPUT", "new cannot be set"),
        (FINDER, {"items": [{"text": "broken"}], "params": {"labels": ["o"]}}, "INFERENCE_ERROR", "item 0"),
        ("org/none", {}, "MODEL_NOT_FOUND", "org/none"),
        ("org/hash", {}, "INVALID_INPUT", "no task 'extract'; it has: encode"),
        ("org/wrong", {}, "MODEL_LOAD_FAILED", "a task 'extract', adapter 'hash' has none"),
    ],
)
async def test_every_refusal_has_its_code_and_says_why(
    worker: Served, model: str, change: dict[str, Any], code: str, named: str
) -> None:
    body = {"items": [{"text": "a"}], "params": {"labels": ["a"]}, **change}
    error = error_of(await patiently(lambda: worker.http.post(f"/v1/extract/{model}", json=body)))
    assert error["code"] == code
    assert named in error["message"]
