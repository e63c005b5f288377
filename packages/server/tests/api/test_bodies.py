"""What a worker makes of bodies before it reads them, and of methods and paths that are almost right."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gated_adapter import until
from served_worker import Served, served, write_catalog
from sie_protocol.errors import ErrorCode, Problem
from sie_server.api.body import Bodies, read_body
from wire_answers import error_of

M = "org/hash"
PATH = f"/v1/encode/{M}"
BODY = json.dumps({"items": [{"text": "x"}]}).encode()


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    async with served(write_catalog(tmp_path, {M: {}}), max_held_body_bytes=1000) as each:
        await each.encode(M, "warm")
        yield each


async def test_bodies_share_their_room_and_give_it_back(worker: Served) -> None:
    may_end = asyncio.Event()
    sent = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal sent
        for piece in (b" " * 900, BODY):
            yield piece
            sent += len(piece)
            await may_end.wait()

    first = asyncio.create_task(worker.http.post(PATH, content=slowly()))
    await until(lambda: sent > 0)
    second = await worker.http.post(PATH, content=BODY + b" " * 200)
    assert error_of(second)["code"] == "QUEUE_FULL"
    assert (await worker.http.post(PATH, content=BODY)).status_code == 200  # there is room for a small one
    may_end.set()
    assert (await first).status_code == 200
    assert (await worker.http.post(PATH, content=BODY + b" " * 200)).status_code == 200


async def test_a_body_larger_than_the_room_is_let_in_alone(worker: Served) -> None:
    assert (await worker.http.post(PATH, content=BODY + b" " * 5000)).status_code == 200


async def test_a_body_that_stops_is_given_up_and_holds_nothing() -> None:
    bodies = Bodies(100)
    held = bodies.open()
    messages = [{"type": "http.request", "body": b"x" * 60, "more_body": True}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    with pytest.raises(Problem) as refused:
        await read_body({"headers": []}, receive, 1000, held, pause_s=0.01)
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert "after 60 bytes" in refused.value.message
    held.release()
    bodies.open().grow(100)


async def test_a_compressed_body_is_refused_as_that(worker: Served) -> None:
    reply = await worker.http.post(PATH, content=gzip.compress(BODY), headers={"content-encoding": "gzip"})
    assert error_of(reply)["message"].startswith("the body is compressed (Content-Encoding: gzip)")
    assert (await worker.http.post(PATH, content=BODY, headers={"content-encoding": "identity"})).status_code == 200


async def test_an_empty_body_is_called_empty(worker: Served) -> None:
    assert error_of(await worker.http.post(PATH))["message"].startswith("the body is empty")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/metrics", "/openapi.json"])
async def test_head_is_get_without_its_body(worker: Served, path: str) -> None:
    asked, whole = await worker.http.head(path), await worker.http.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", PATH, "POST"), ("POST", "/v1/models", "GET")])
async def test_a_wrong_method_is_told_the_right_one(worker: Served, method: str, path: str, allowed: str) -> None:
    reply = await worker.http.request(method, path)
    assert error_of(reply)["code"] == "METHOD_NOT_ALLOWED"
    assert reply.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/encode", 404, "there is nothing at /v1/encode"),
        ("/v1/encode/", 404, "names no model"),
        ("/v1/embeddings/", 404, "there is nothing at /v1/embeddings/"),
        (f"{PATH}/", 404, f"did you mean {M}?"),
        ("/v1/encode/hash", 404, f"did you mean {M}?"),
    ],
)
async def test_a_path_that_is_almost_right_is_no_redirect(worker: Served, path: str, status: int, message: str) -> None:
    reply: httpx.Response = await worker.http.post(path, content=BODY)
    assert reply.status_code == status
    assert message in error_of(reply)["message"]
