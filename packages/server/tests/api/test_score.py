from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON
from sie_server.adapters.base import Pair
from tiny_cross_encoder import logits, write_reranker
from wire_answers import error_of, patiently

RERANKER, HASH = "org/reranker", "org/hash"
DOCUMENTS = ["a mat", "the cat sat on a mat", "two dogs running far away", "", "the dogs", "a mat"]
QUERY = "the cat saw"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw: dict[str, Any] = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    return write_reranker(tmp_path_factory.mktemp("tiny") / "model", **raw)


@pytest.fixture
async def worker(tmp_path: Path, folder: Path) -> Any:
    models: dict[str, dict[str, Any]] = {
        RERANKER: {"adapter": "cross_encoder", "weights_path": str(folder), "tasks": {"score": {}}},
        HASH: {"max_sequence_length": 4, "options": {"query_template": "q: {text}", "doc_template": "d: {text}"}},
        "org/wrong": {"tasks": {"encode": {"dense": {"dim": 8}}, "score": {}}},
        "org/sparse": {"tasks": {"encode": {"sparse": {"dim": 9}}}},
    }
    async with served(write_catalog(tmp_path / "catalog", models), max_text_chars=200) as each:
        yield each


async def scores(worker: Served, model: str, documents: list[str], query: str = QUERY, **more: Any) -> Any:
    body = {"query": {"text": query}, "items": [{"text": text} for text in documents], **more}
    reply = await patiently(lambda: worker.http.post(f"/v1/score/{model}", json=body, headers={"accept": JSON}))
    assert reply.status_code == 200, reply.text
    return reply.json()


def by_place(answer: Any) -> list[float]:
    found = {entry["item_id"]: entry["score"] for entry in answer["scores"]}
    return [found[f"item-{at}"] for at in range(len(found))]


async def test_the_best_item_comes_first_with_rank_0(worker: Served, folder: Path) -> None:
    answer = await scores(worker, RERANKER, DOCUMENTS)
    expected = logits(folder, [Pair(QUERY, text) for text in DOCUMENTS])
    np.testing.assert_allclose(by_place(answer), expected, rtol=1e-5, atol=1e-5)
    assert [entry["rank"] for entry in answer["scores"]] == list(range(len(DOCUMENTS)))
    values = [entry["score"] for entry in answer["scores"]]
    assert values == sorted(values, reverse=True)
    assert (answer["model"], answer["query_id"]) == (RERANKER, None)


async def test_the_order_of_the_items_does_not_matter_to_their_scores(worker: Served) -> None:
    forward = by_place(await scores(worker, RERANKER, DOCUMENTS))
    backward = by_place(await scores(worker, RERANKER, DOCUMENTS[::-1]))
    np.testing.assert_allclose(backward[::-1], forward, rtol=1e-5, atol=1e-5)


async def test_an_instruction_stands_before_the_query(worker: Served) -> None:
    instructed = await scores(worker, RERANKER, DOCUMENTS, instruction="two dogs")
    assert by_place(instructed) == by_place(await scores(worker, RERANKER, DOCUMENTS, f"two dogs {QUERY}"))


async def test_msgpack_ids_usage_and_timing(worker: Served) -> None:
    await scores(worker, RERANKER, ["a"])
    items = [{"id": "x", "text": "a mat"}, {"text": "cat"}, {"id": None, "text": " ".join(["cat"] * 60)[:200]}]
    reply = await worker.http.post(
        f"/v1/score/{RERANKER}",
        content=msgspec.msgpack.encode({"query": {"id": "q", "text": "the cat"}, "items": items}),
        headers={"content-type": "application/msgpack"},
    )
    answer = msgspec.msgpack.decode(reply.content)
    assert reply.headers["content-type"] == "application/msgpack"
    assert answer["query_id"] == "q"
    assert {entry["item_id"] for entry in answer["scores"]} == {"x", "item-1", "item-2"}
    assert answer["usage"] == {"input_tokens": 7 + 6 + 48, "truncated_items": 1}
    assert float(reply.headers["x-inference-time"]) >= 0
    metrics = (await worker.http.get("/metrics")).text
    assert f'sie_requests_total{{code="200",endpoint="score",model="{RERANKER}",status="success"}}' in metrics


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
async def test_a_model_of_vectors_compares_the_query_side_with_the_document_side(
    worker: Served, similarity: str
) -> None:
    found = by_place(await scores(worker, HASH, DOCUMENTS, options={"similarity": similarity}))
    query = (await worker.encode(HASH, QUERY, options={"is_query": True})).json()["items"][0]["dense"]["values"]
    documents = [item["dense"]["values"] for item in (await worker.encode(HASH, *DOCUMENTS)).json()["items"]]
    np.testing.assert_allclose(found, np.array(documents) @ np.array(query), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "change", "code", "named"),
    [
        (RERANKER, {"items": []}, "INVALID_INPUT", "items is empty"),
        (RERANKER, {"items": [{"text": ""}] * 1001}, "INPUT_TOO_LONG", "1001 items"),
        (RERANKER, {"items": ["text"]}, "INVALID_INPUT", "items"),
        (RERANKER, {"items": [{"text": "a"}, {"id": "x"}]}, "INVALID_INPUT", "item 1 has no text"),
        (RERANKER, {"items": [{"text": "a" * 201}]}, "INPUT_TOO_LONG", "item 0 has 201 characters"),
        (RERANKER, {"query": {"id": "q"}}, "INVALID_INPUT", "the query has no text"),
        (RERANKER, {"query": "text"}, "INVALID_INPUT", "query"),
        (RERANKER, {"query": {"text": "a", "images": [{"data": "aGk="}]}}, "INVALID_INPUT", "the query has images"),
        (RERANKER, {"options": {"similarity": "euclid"}}, "INVALID_INPUT", "cosine, dot"),
        (RERANKER, {"options": {"pooling": "cls"}}, "INVALID_INPUT", "pooling"),
        (RERANKER, {"instruction": 5}, "INVALID_INPUT", "instruction"),
        ("org/none", {}, "MODEL_NOT_FOUND", "org/none"),
        ("org/wrong", {}, "MODEL_LOAD_FAILED", "adapter 'hash' has none"),
    ],
)
async def test_every_refusal_has_its_code_and_says_why(
    worker: Served, model: str, change: dict[str, Any], code: str, named: str
) -> None:
    body = {"query": {"text": "a"}, "items": [{"text": "b"}], **change}
    error = error_of(await patiently(lambda: worker.http.post(f"/v1/score/{model}", json=body)))
    assert error["code"] == code
    assert named in error["message"]
    if named.startswith("item "):
        assert error["item"] == int(named.split()[1])


async def test_a_reranker_does_not_encode(worker: Served) -> None:
    error = error_of(await worker.encode(RERANKER, "a"))
    assert "no task 'encode'; it has: score" in error["message"]


async def test_a_score_that_is_no_number_is_an_error_and_never_sent(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "model")
    spoil(folder)
    models = {RERANKER: {"adapter": "cross_encoder", "weights_path": str(folder), "tasks": {"score": {}}}}
    async with served(write_catalog(tmp_path / "catalog", models)) as worker:
        body = {"query": {"text": "a"}, "items": [{"text": "b"}]}
        reply = await patiently(lambda: worker.http.post(f"/v1/score/{RERANKER}", json=body))
    assert error_of(reply)["code"] == "INFERENCE_ERROR"


def spoil(folder: Path) -> None:
    import torch  # noqa: PLC0415 - only here
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - only here

    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = torch.tensor([float("nan")])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
