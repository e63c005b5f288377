"""A GLiNER model behind the real app answers over HTTP what the package `gliner` finds."""

from pathlib import Path
from typing import Any

import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON
from tiny_gliner import Variety, gliner_oracle, write_gliner
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
