from pathlib import Path
from typing import Any

import httpx
import pytest

from served_worker import Served, served, write_catalog
from tiny_bge_m3 import TOKEN_DIMS, write_bge_m3
from tiny_families import WIDTH

HASH = {"tasks": {"encode": {"dense": {"dim": 8}, "sparse": {"dim": 64}}}, "max_sequence_length": 3}


async def score(worker: Served, model: str, query: str, *texts: str, **options: Any) -> httpx.Response:
    body = {"query": {"text": query}, "items": [{"text": text} for text in texts], "options": options}
    return await worker.http.post(f"/v1/score/{model}", json=body, headers={"accept": "application/json"})


async def test_a_text_that_is_too_long_is_cut_and_counted_or_refused_as_the_request_says(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {"org/hash": HASH})) as worker:
        for options in ({}, {"overflow_policy": "default"}, {"overflow_policy": "truncate_text"}):
            cut = await worker.encode("org/hash", "a b", "a b c d e", options=options)
            assert cut.json()["usage"] == {"input_tokens": 5, "truncated_items": 1}
        strict = {"overflow_policy": "error"}
        assert (await worker.encode("org/hash", "a b", "a b c", options=strict)).status_code == 200
        refused = await worker.encode("org/hash", "a b", "a b c d e", options=strict)
        scored = await score(worker, "org/hash", "q", "a", "a b c d", **strict)
        asked = await score(worker, "org/hash", "q w e r t y", "a", **strict)
    said = [each.json()["error"]["message"].split(";")[0] for each in (refused, scored, asked)]
    assert said == [
        "item 1 has 5 tokens, model 'org/hash' reads at most 3",
        "item 1 has 4 tokens, model 'org/hash' reads at most 3",
        "the query has 6 tokens, model 'org/hash' reads at most 3",
    ]
    for each in (refused, scored, asked):
        assert (each.status_code, each.headers["x-sie-error-code"]) == (413, "INPUT_TOO_LONG")
    assert [each.json()["error"].get("item") for each in (refused, scored, asked)] == [1, 1, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bge_m3(tmp_path_factory.mktemp("tiny") / "model")


async def test_a_model_of_three_outputs_scores_by_any_of_them_and_by_all(tmp_path: Path, folder: Path) -> None:
    dims = {"dense": {"dim": WIDTH}, "sparse": {"dim": 36}, "multivector": {"dim": TOKEN_DIMS}}
    model = {"adapter": "bge_m3", "weights_path": str(folder), "allow_pickle": True, "tasks": {"encode": dims}}
    texts = ("the cat", "far away: a text about nothing")
    async with served(write_catalog(tmp_path, {"org/m3": model})) as worker:
        await worker.encode("org/m3", "load")
        found = {}
        for mode in ("dense", "sparse", "multivector", "colbert", "hybrid"):
            reply = (await score(worker, "org/m3", "the cat", *texts, score_mode=mode)).json()
            found[mode] = [each["score"] for each in sorted(reply["scores"], key=lambda each: each["item_id"])]
        weighed = await score(worker, "org/m3", "the cat", *texts, score_mode="hybrid", score_weights=[1, 0, 0])
        tokens = (await worker.encode("org/m3", "the cat", output_types=["multivector"])).json()["items"][0]
    count = tokens["multivector"]["num_tokens"]
    assert found["dense"][0] == pytest.approx(1, abs=1e-5)  # the query itself
    assert found["multivector"][0] == pytest.approx(count, abs=1e-4)
    assert found["colbert"] == found["multivector"]
    for at in range(len(texts)):
        dense, sparse, multi = (found[mode][at] for mode in ("dense", "sparse", "multivector"))
        assert found["hybrid"][at] == pytest.approx(0.4 * dense + 0.2 * sparse + 0.4 * multi / count, abs=1e-4)
    assert weighed.json()["scores"][0]["score"] == pytest.approx(found["dense"][0], abs=1e-5)


async def test_requests_that_ask_for_different_outputs_share_a_model_and_get_only_theirs(
    tmp_path: Path, folder: Path
) -> None:
    dims = {"dense": {"dim": WIDTH}, "sparse": {"dim": 36}}
    model = {"adapter": "bge_m3", "weights_path": str(folder), "allow_pickle": True, "tasks": {"encode": dims}}
    async with served(write_catalog(tmp_path, {"org/m3": model})) as worker:
        for wanted in (["dense"], ["sparse"], ["dense", "sparse"]):
            item = (await worker.encode("org/m3", "the cat", output_types=wanted)).json()["items"][0]
            assert sorted(item) == wanted
