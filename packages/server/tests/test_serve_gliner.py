"""Models of the GLiNER family behind the real app answer over HTTP what their packages find."""

from pathlib import Path
from typing import Any

import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON
from sie_server.core.schema import read_schema
from tiny_gliner import Variety, gliner_oracle, relation_oracle, write_gliner
from tiny_gliner2 import Oracle, write_gliner2
from tiny_gliner2 import Variety as Variety2
from tiny_glirel import Variety as RelVariety
from tiny_glirel import write_glirel
from wire_answers import patiently

LABELS = ["person", "place of birth", "x"]
TEXTS = ["the cat sat on a mat and saw two dogs running far away, then it ran.", "", "ada met bob in a small town"]


async def entities(worker: Served, options: dict[str, Any]) -> list[list[dict[str, Any]]]:
    body = {"items": [{"text": text} for text in TEXTS], "params": {"labels": LABELS, "options": options}}
    post = worker.http.post
    reply = await patiently(lambda: post("/v1/extract/org/gliner", json=body, headers={"accept": JSON}))
    assert reply.status_code == 200, reply.text
    return [item["entities"] for item in reply.json()["items"]]


async def test_a_gliner_model_answers_what_gliner_finds(tmp_path: Path) -> None:
    folder = write_gliner(tmp_path / "model", Variety(seed=6))
    own = {"adapter": "gliner", "tasks": {"extract": {}}, "weights_path": str(folder), "options": {"threshold": 0.5}}
    oracle = gliner_oracle(folder)
    async with served(write_catalog(tmp_path / "catalog", {"org/gliner": own})) as worker:
        for options in ({}, {"threshold": 0.3, "flat_ner": False}, {"multi_label": True}):
            expected = oracle(TEXTS, LABELS, **options)
            assert any(expected)
            for found, wanted in zip(await entities(worker, options), expected, strict=True):
                places = [(e["text"], e["label"], e["start"], e["end"]) for e in found]
                assert places == [(text, label, start, end) for text, label, _, start, end in wanted]
                assert [e["score"] for e in found] == pytest.approx([each[2] for each in wanted], abs=1e-5)
        apart = await entities(worker, {"merge_adjacent_entities": False})
        merged = await entities(worker, {"merge_adjacent_entities": True})
        assert [len(each) for each in apart] != [len(each) for each in merged]


async def test_entities_of_one_model_go_into_another_that_relates_them(tmp_path: Path) -> None:
    finder = write_gliner2(tmp_path / "finder", Variety2(seed=1))
    relate = write_glirel(tmp_path / "relater", RelVariety(seed=1))
    models: dict[str, dict[str, Any]] = {
        "org/finder": {
            "adapter": "gliner2",
            "tasks": {"extract": {}},
            "weights_path": str(finder),
        },
        "org/relater": {
            "adapter": "glirel",
            "tasks": {"extract": {"entities": "required"}},
            "weights_path": str(tmp_path / "relater"),
            "options": {"threshold": 0.1, "top_k": 2},
        },
    }
    text = TEXTS[0]
    async with served(write_catalog(tmp_path / "catalog", models)) as worker:

        async def ask(model: str, item: dict[str, Any], labels: list[str], **options: Any) -> dict[str, Any]:
            body = {"items": [item], "params": {"labels": labels, "options": options}}
            post = worker.http.post
            reply = await patiently(lambda: post(f"/v1/extract/{model}", json=body, headers={"accept": JSON}))
            assert reply.status_code == 200, reply.text
            item = reply.json()["items"][0]
            assert "error" not in item, item
            return item

        entities = (await ask("org/finder", {"text": text}, LABELS, threshold=0.4))["entities"]
        expected = Oracle(finder).entities(text, LABELS, 0.4)
        assert sorted((e["label"], e["start"], e["end"]) for e in entities) == sorted(
            (label, start, end) for _, label, _, start, end in expected
        )
        classes = (await ask("org/finder", {"text": text}, LABELS, findings="classifications"))["classifications"]
        wanted = Oracle(finder).classes(text, LABELS, "classification", multi_label=False)
        assert {each["label"]: each["score"] for each in classes} == pytest.approx(wanted, abs=1e-5)

        item = {"text": text, "metadata": {"entities": entities}}
        relations = (await ask("org/relater", item, ["knows", "owns"]))["relations"]
        spans = list(dict.fromkeys((e["start"], e["end"]) for e in entities))
        theirs = relate(text, ["knows", "owns"], spans, threshold=0.1, top_k=2)
        assert theirs
        assert [(each["head"], each["tail"], each["relation"]) for each in relations] == [
            (text[slice(*head)], text[slice(*tail)], relation) for head, tail, relation, _ in theirs
        ]
        assert [each["score"] for each in relations] == pytest.approx([score for *_, score in theirs], abs=1e-5)


async def test_one_model_finds_entities_and_what_they_have_to_do_with_each_other(tmp_path: Path) -> None:
    folder = write_gliner(tmp_path / "model", Variety({"max_width": 2}, seed=2, relates=True))
    own = {"adapter": "gliner", "tasks": {"extract": {}}, "weights_path": str(folder)}
    relations = ["knows", "is born in"]
    entities, related = relation_oracle(folder)(TEXTS[0], LABELS, relations, threshold=0.5, relation_threshold=0.4)
    assert related
    async with served(write_catalog(tmp_path / "catalog", {"org/gliner": own})) as worker:
        body = {
            "items": [{"text": TEXTS[0]}],
            "params": {"labels": LABELS, "options": {"relation_labels": relations, "relation_threshold": 0.4}},
        }
        post = worker.http.post
        reply = await patiently(lambda: post("/v1/extract/org/gliner", json=body, headers={"accept": JSON}))
        (item,) = reply.json()["items"]
        found = sorted((each["label"], each["start"], each["end"]) for each in item["entities"])
        assert found == sorted((label, start, end) for _, label, _, start, end in entities)
        assert sorted((each["head"], each["relation"], each["tail"]) for each in item["relations"]) == sorted(
            (TEXTS[0][slice(*head)], relation, TEXTS[0][slice(*tail)]) for head, tail, relation, _ in related
        )
        scores = sorted((score for *_, score in related), reverse=True)
        assert [each["score"] for each in item["relations"]] == pytest.approx(scores, abs=1e-5)


async def test_data_travel_in_the_form_of_a_schema(tmp_path: Path) -> None:
    folder = write_gliner2(tmp_path / "model", Variety2(seed=1, instances=2))
    own = {
        "adapter": "gliner2",
        "tasks": {"extract": {"output_schema": "optional"}},
        "weights_path": str(folder),
        "options": {"threshold": 0.4},
    }
    raw = {
        "properties": {
            "mood": {"enum": ["good", "bad"]},
            "people": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        }
    }
    theirs = Oracle(folder).data(TEXTS[0], read_schema(raw), 0.4)
    async with served(write_catalog(tmp_path / "catalog", {"org/gliner2": own})) as worker:

        async def ask(**options: Any) -> dict[str, Any]:
            body = {"items": [{"text": TEXTS[0]}], "params": {"output_schema": raw, "options": options}}
            post = worker.http.post
            reply = await patiently(lambda: post("/v1/extract/org/gliner2", json=body, headers={"accept": JSON}))
            assert reply.status_code == 200, reply.text
            data: dict[str, Any] = reply.json()["items"][0]["data"]
            return data

        plain, evident = await ask(), await ask(evidence=True)
    label, score = max(theirs["mood"], key=lambda each: each[1])
    assert plain["mood"] == label
    assert evident["mood"] == {"text": label, "score": pytest.approx(score, abs=1e-5), "start": None, "end": None}
    names = [each["name"] for each in evident["people"]]
    assert names
    assert plain["people"] == [{"name": TEXTS[0][each["start"] : each["end"]]} for each in names]
    expected = {(each["name"]["start"], each["name"]["end"]): each["name"]["confidence"] for each in theirs["people"]}
    assert {(each["start"], each["end"]): each["score"] for each in names} == pytest.approx(expected, abs=1e-5)
