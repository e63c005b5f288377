import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.arrays import decode_reply
from sie_protocol.versions import VERSION
from wire_answers import error_of

M = "org/hash"
MODELS: dict[str, dict[str, Any]] = {
    M: {"max_sequence_length": 4},
    "org/templated": {"options": {"query_template": "q: {text}", "doc_template": "d: {text}"}},
    "org/missing": {"adapter": "dense", "weights_path": "/nowhere/at/all"},
    "org/scorer": {"tasks": {"score": {}}},
}


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    async with served(write_catalog(tmp_path, MODELS), machine_profile="l4", max_body_bytes=4000) as each:
        yield each


async def test_msgpack_is_the_default_and_ids_and_order_are_kept(worker: Served) -> None:
    await worker.encode(M, "warm")
    body = {"items": [{"id": "x", "text": "one two"}, {"text": "a b c d e"}, {"id": None, "text": "", "new": 1}]}
    reply = await worker.http.post(
        f"/v1/encode/{M}",
        content=msgspec.msgpack.encode(body),
        headers={"content-type": "application/x-msgpack", "x-request-id": "abc-1", "x-sie-machine-profile": "L4"},
    )
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/msgpack"
    assert reply.headers["x-request-id"] == "abc-1"
    assert reply.headers.get_list("x-sie-server-version") == [VERSION]
    answer = decode_reply(reply.content)
    assert answer["model"] == M
    assert [item.get("id") for item in answer["items"]] == ["x", None, None]
    assert all("id" not in item for item in answer["items"][1:])
    assert answer["usage"] == {"input_tokens": 7, "truncated_items": 1}
    for item in answer["items"]:
        dense = item["dense"]
        assert (dense["dims"], dense["dtype"], dense["values"].dtype) == (8, "float32", np.float32)
    for name in ("x-queue-time", "x-tokenization-time", "x-inference-time", "x-total-time"):
        assert 0 <= float(reply.headers[name]) < 10_000
    timing = answer["timing"]
    assert timing["total_ms"] >= timing["inference_ms"] >= 0


async def test_what_is_made_of_the_vectors_is_timed_where_there_is_something_to_make(worker: Served) -> None:
    body = {"query": {"text": "x"}, "items": [{"text": "y"}]}
    plain, small = await worker.encode(M, "x"), await worker.encode(M, "x", output_dtype="int8")
    compared = await worker.http.post(f"/v1/score/{M}", json=body)
    assert "x-postprocessing-time" not in plain.headers
    assert plain.json()["timing"]["postprocessing_ms"] == 0
    assert 0 < small.json()["timing"]["postprocessing_ms"] < float(small.headers["x-total-time"]) + 0.005
    for reply in (small, compared):
        assert 0 <= float(reply.headers["x-postprocessing-time"]) <= float(reply.headers["x-total-time"])
    metrics = (await worker.http.get("/metrics")).text
    for endpoint in ("encode", "score"):
        name = f'sie_request_duration_seconds_count{{endpoint="{endpoint}",model="{M}",phase="postprocess"}}'
        assert f"{name} 1.0" in metrics


async def test_json_and_half_precision_on_request(worker: Served) -> None:
    whole = (await worker.encode(M, "one two")).json()["items"][0]["dense"]
    half = (await worker.encode(M, "one two", output_dtype="float16")).json()["items"][0]["dense"]
    assert half["dtype"] == "float16"
    np.testing.assert_array_equal(np.float16(whole["values"]), np.float16(half["values"]))


async def test_queries_and_documents_get_their_own_prompt(worker: Served) -> None:
    async def vector(model: str, text: str, **params: Any) -> Any:
        return (await worker.encode(model, text, **params)).json()["items"][0]["dense"]["values"]

    templated = "org/templated"
    assert await vector(templated, "x") == await vector(M, "d: x")
    assert await vector(templated, "x", options={"is_query": True}) == await vector(M, "q: x")
    assert await vector(M, "x", instruction="do") == await vector(M, "do x")


async def test_model_ids_are_found_in_any_spelling(worker: Served) -> None:
    assert (await worker.encode("ORG/Hash", "x")).json()["model"] == M


@pytest.mark.parametrize(
    ("path", "body", "headers", "code", "named"),
    [
        (f"/v1/encode/{M}", b"{", {}, "INVALID_INPUT", "not a valid JSON request"),
        (f"/v1/encode/{M}", b"\xc1", {"content-type": "application/msgpack"}, "INVALID_INPUT", "msgpack"),
        (f"/v1/encode/{M}", {"items": []}, {}, "INVALID_INPUT", "items is empty"),
        (f"/v1/encode/{M}", {}, {}, "INVALID_INPUT", "items"),
        (f"/v1/encode/{M}", {"items": ["text"]}, {}, "INVALID_INPUT", "items"),
        (f"/v1/encode/{M}", {"items": [{"text": 5}]}, {}, "INVALID_INPUT", "text"),
        (f"/v1/encode/{M}", {"items": [{"text": "a"}, {}]}, {}, "INVALID_INPUT", "item 1 has no text"),
        (f"/v1/encode/{M}", {"items": [{"images": [{"data": "aGk="}]}]}, {}, "INVALID_INPUT", "reads text only"),
        (
            f"/v1/encode/{M}",
            {"items": [{"text": "a"}], "params": {"output_dtype": "int4"}},
            {},
            "INVALID_INPUT",
            "float16",
        ),
        (f"/v1/encode/{M}", b"x" * 4001, {}, "INPUT_TOO_LONG", "4001 bytes"),
        (f"/v1/encode/{M}", {"items": [{"text": "a"}]}, {"x-sie-machine-profile": "a100"}, "INVALID_INPUT", "'a100'"),
        ("/v1/encode/org/none", {"items": [{"text": "a"}]}, {}, "MODEL_NOT_FOUND", "org/none"),
        (f"/v1/encode/{M}:other", {"items": [{"text": "a"}]}, {}, "MODEL_NOT_FOUND", "it has: default"),
        ("/v1/encode/org/scorer", {"items": [{"text": "a"}]}, {}, "INVALID_INPUT", "no task 'encode'; it has: score"),
        (f"/v1/extract/{M}", {"items": []}, {}, "INVALID_INPUT", "no task 'extract'"),
        ("/v1/score/org/none", {}, {}, "MODEL_NOT_FOUND", "org/none"),
        ("/v1/nothing", {}, {}, "NOT_FOUND", "/v1/nothing"),
    ],
)
async def test_every_refusal_has_its_code_and_says_why(
    worker: Served, path: str, body: Any, headers: dict[str, str], code: str, named: str
) -> None:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    reply = await worker.http.post(path, content=content, headers=headers)
    error = error_of(reply)
    assert error["code"] == code
    assert named in error["message"]


async def test_a_wrong_machine_profile_is_told_both_names(worker: Served) -> None:
    reply = await worker.http.post(f"/v1/encode/{M}", json={}, headers={"X-SIE-MACHINE-PROFILE": "tenant/a100"})
    error = error_of(reply)
    assert (error["requested_profile"], error["worker_identity"]) == ("a100", "l4")


async def test_a_body_without_a_length_is_cut_off_at_the_limit(worker: Served) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 1000

    reply = await worker.http.post(f"/v1/encode/{M}", content=endless())
    assert error_of(reply)["code"] == "INPUT_TOO_LONG"


async def test_a_wrong_method_is_405_with_the_same_envelope(worker: Served) -> None:
    assert error_of(await worker.http.get(f"/v1/encode/{M}"))["code"] == "METHOD_NOT_ALLOWED"
    assert error_of(await worker.http.post("/healthz"))["code"] == "METHOD_NOT_ALLOWED"


async def test_a_model_loads_on_its_first_request_and_then_answers(worker: Served) -> None:
    first = await worker.http.post(f"/v1/encode/{M}", json={"items": [{"text": "x"}]})
    assert error_of(first)["code"] == "MODEL_LOADING"
    assert first.headers["retry-after"] == "1"
    assert (await worker.encode(M, "x")).status_code == 200


async def test_a_failed_load_is_remembered_and_not_repeated(worker: Served) -> None:
    for _ in range(3):
        error = error_of(await worker.encode("org/missing", "x"))
        assert error["code"] == "MODEL_LOAD_FAILED"
        assert (error["error_class"], error["attempts"], error["permanent"]) == ("NOT_FOUND", 1, True)
        assert "/nowhere/at/all" in error["message"]
    info = (await worker.http.get("/v1/models/org/missing")).json()
    assert (info["state"], info["loaded"], info["last_error"]["attempts"]) == ("failed", False, 1)


async def test_models_tell_what_they_are(worker: Served) -> None:
    await worker.encode(M, "x")
    listed = {each["name"]: each for each in (await worker.http.get("/v1/models")).json()["models"]}
    assert set(listed) == set(MODELS)
    info = (await worker.http.get(f"/v1/models/{M}")).json()
    assert info == listed[M] | {"id": M, "object": "model", "created": 0, "owned_by": M.split("/", maxsplit=1)[0]}
    assert (info["dims"], info["outputs"], info["inputs"]) == ({"dense": 8}, ["dense"], ["text"])
    assert (info["state"], info["loaded"], info["max_sequence_length"]) == ("loaded", True, 4)
    assert info["profiles"] == {"default": {"is_default": True, "model": M, "weights": M}}
    assert error_of(await worker.http.get("/v1/models/org/none"))["code"] == "MODEL_NOT_FOUND"


async def test_health_is_plain_text_and_readiness_ends_with_draining(worker: Served) -> None:
    for path in ("/healthz", "/readyz"):
        reply = await worker.http.get(path)
        assert (reply.status_code, reply.text, reply.headers["content-type"]) == (
            200,
            "ok",
            "text/plain; charset=utf-8",
        )
    worker.worker.engine.drain()
    assert (await worker.http.get("/healthz")).status_code == 200
    unready = await worker.http.get("/readyz")
    assert (unready.status_code, unready.text) == (503, "not ready: shutting down")
    assert error_of(await worker.encode(M, "x"))["code"] == "SHUTTING_DOWN"


async def test_metrics_have_only_catalogue_names_and_reading_changes_nothing(worker: Served) -> None:
    await worker.encode(M, "one two three")
    await worker.http.post("/v1/encode/evil/%22name", json={})
    first, second = [(await worker.http.get("/metrics")).text for _ in range(2)]
    memory = re.compile(r"^sie_memory_used_bytes .*$", re.MULTILINE)  # that of the process moves by itself
    assert memory.sub("", first) == memory.sub("", second)
    assert f'sie_requests_total{{code="200",endpoint="encode",model="{M}",status="success"}} 1.0' in first
    assert 'sie_requests_total{code="404",endpoint="encode",model="other",status="error"} 1.0' in first
    assert f'sie_tokens_processed_total{{model="{M}"}} 3.0' in first
    assert f'sie_queue_depth{{model="{M}"}} 0.0' in first
    assert f'sie_model_loaded{{device="cpu",model="{M}"}} 1.0' in first
    assert 'phase="inference"' in first
    assert "evil" not in first


async def test_fifty_requests_at_once_are_all_answered(worker: Served) -> None:
    await worker.encode(M, "warm")
    replies = await asyncio.gather(*(worker.encode(M, f"text {at}") for at in range(50)))
    vectors = {tuple(reply.json()["items"][0]["dense"]["values"]) for reply in replies}
    assert [reply.status_code for reply in replies] == [200] * 50
    assert len(vectors) == 50


async def test_a_bad_request_id_is_replaced(worker: Served) -> None:
    reply = await worker.http.get("/healthz", headers={"x-request-id": "a" * 500})
    assert len(reply.headers["x-request-id"]) == 32


async def test_the_phases_of_a_request_fit_into_its_time_however_many_batches_run_side_by_side(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {M: {"options": {"batch_s": 0.02}}}), max_batch_items=2) as kit:
        reply = await kit.encode(M, *map(str, range(16)))
        phases = [float(reply.headers[f"x-{phase}-time"]) for phase in ("queue", "tokenization", "inference")]
        assert 20 <= phases[2] <= sum(phases) <= float(reply.headers["x-total-time"])
