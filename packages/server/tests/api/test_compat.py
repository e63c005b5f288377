from pathlib import Path
from typing import Any

import httpx
import pytest

import buggy_adapter
from served_worker import Served, served, write_catalog
from sie_server.adapters.registry import ADAPTERS
from wire_answers import code_of, patiently

HASH = "org/hash"
CALLS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "a"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
}


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    models = {
        HASH: {},
        "org/buggy": {"adapter": "buggy"},
        "org/missing": {"adapter": "dense", "weights_path": "/nowhere/at/all"},
    }
    adapters = {**ADAPTERS, **buggy_adapter.ADAPTERS}
    settings = write_catalog(tmp_path, models, adapters)
    async with served(settings, adapters, machine_profile="l4", max_body_bytes=4000, max_text_chars=100) as each:
        yield each


def error_of(reply: httpx.Response) -> dict[str, Any]:
    assert set(reply.json()) == {"error"}
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code_of(reply)
    return error


async def ask(worker: Served, path: str, **changes: Any) -> httpx.Response:
    body = {"model": HASH, **CALLS[path], **changes}
    return await patiently(lambda: worker.http.post(path, json=body))


@pytest.mark.parametrize("path", CALLS)
async def test_a_model_that_loads_is_no_fault_of_a_field_and_says_when_to_come_back(worker: Served, path: str) -> None:
    reply = await worker.http.post(path, json={"model": HASH, **CALLS[path]})
    error = error_of(reply)
    assert (error["code"], error["type"], error["param"]) == ("MODEL_LOADING", "server_error", None)
    assert reply.headers["retry-after"] == "1"
    assert (await ask(worker, path)).status_code == 200


@pytest.mark.parametrize("path", CALLS)
async def test_what_is_wrong_with_the_worker_is_a_server_error(worker: Served, path: str) -> None:
    failed = error_of(await ask(worker, path, model="org/missing"))
    assert (failed["code"], failed["type"], failed["param"]) == ("MODEL_LOAD_FAILED", "server_error", None)
    worker.worker.engine.drain()
    draining = error_of(await ask(worker, path))
    assert (draining["code"], draining["type"], draining["param"]) == ("SHUTTING_DOWN", "server_error", None)


@pytest.mark.parametrize("path", CALLS)
async def test_a_bug_has_the_shape_of_the_route_too_and_is_in_the_log(
    worker: Served, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await ask(worker, path, model="org/buggy")
    error = error_of(reply)
    assert (reply.status_code, error["code"], error["type"]) == (500, "INTERNAL_ERROR", "server_error")
    assert reply.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("path", CALLS)
async def test_refusals_that_every_route_has_come_in_this_shape_too(worker: Served, path: str) -> None:
    body = {"model": HASH, **CALLS[path]}
    elsewhere = await worker.http.post(path, json=body, headers={"x-sie-machine-profile": "a100"})
    assert error_of(elsewhere)["code"] == "INVALID_INPUT"
    assert error_of(await worker.http.post(path, content=b"x" * 4001))["code"] == "INPUT_TOO_LONG"


async def test_a_text_that_is_too_long_is_named(worker: Served) -> None:
    error = error_of(await ask(worker, "/v1/embeddings", input=["a", "b" * 101]))
    assert (error["code"], error["type"]) == ("INPUT_TOO_LONG", "invalid_request_error")
    assert "item 1" in error["message"]


async def test_json_is_answered_whatever_the_headers_say(worker: Served) -> None:
    await ask(worker, "/v1/embeddings")
    headers = {"accept": "application/msgpack", "content-type": "text/plain", "x-request-id": "r-1"}
    for path, fields in CALLS.items():
        reply = await worker.http.post(path, json={"model": HASH, **fields}, headers=headers)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/json"
        assert float(reply.headers["x-total-time"]) >= 0
        assert reply.json()["model"] == HASH
    assert reply.json()["id"] == "r-1"


async def test_requests_are_counted_under_the_models_of_the_catalogue(worker: Served) -> None:
    for path in CALLS:
        await ask(worker, path)
        await ask(worker, path, model="evil/name")
    metrics = (await worker.http.get("/metrics")).text
    assert f'sie_requests_total{{code="200",endpoint="embeddings",model="{HASH}",status="success"}} 1.0' in metrics
    assert f'sie_requests_total{{code="200",endpoint="rerank",model="{HASH}",status="success"}} 2.0' in metrics
    assert 'sie_requests_total{code="404",endpoint="rerank",model="other",status="error"} 2.0' in metrics
    assert "evil" not in metrics


async def test_options_of_a_rerank_request_are_those_of_a_score_request(worker: Served) -> None:
    long = "word " * 15
    asked = {"query": long, "documents": [long, "b"]}
    dot = await ask(worker, "/v1/rerank", **asked, options={"similarity": "dot", "overflow_policy": None})
    assert dot.status_code == 200, dot.text
    for options in ({"nonsense": 1}, {"similarity": "euclid"}, {"overflow_policy": "explode"}, {"profile": "none"}):
        error = error_of(await ask(worker, "/v1/rerank", **asked, options=options))
        assert (error["code"], error["param"]) == ("INVALID_INPUT", "options")


async def test_what_no_worker_does_to_documents_is_refused_and_not_dropped(worker: Served) -> None:
    error = error_of(await ask(worker, "/v2/rerank", max_tokens_per_doc=1))
    assert (error["code"], error["param"]) == ("INVALID_INPUT", "max_tokens_per_doc")
    assert (await ask(worker, "/v2/rerank", max_tokens_per_doc=None)).status_code == 200


async def test_a_format_that_is_null_was_not_said(worker: Served) -> None:
    replies = [await ask(worker, "/v1/embeddings", **own) for own in ({}, {"encoding_format": None})]
    assert replies[0].json() == replies[1].json()
