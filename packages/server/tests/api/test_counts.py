"""Requests with too many items, or values: refused before anything is done for each of them, on every route."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import finder_adapter
from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON, MSGPACK
from sie_server.adapters.registry import ADAPTERS
from sie_server.core.values import MAX_VALUES
from wire_answers import code_of

M, FINDER = "org/hash", "org/finder"
MOST = 50

# By path a body with so many items; none of the items could be read.
BODIES: dict[str, Callable[[int], dict[str, Any]]] = {
    f"/v1/encode/{M}": lambda count: {"items": [{}] * count},
    f"/v1/score/{M}": lambda count: {"query": {"text": "a"}, "items": [{}] * (count * 20)},
    f"/v1/extract/{FINDER}": lambda count: {"items": [{}] * count, "params": {"labels": ["a"]}},
    "/v1/embeddings": lambda count: {"model": M, "input": [""] * count},
    "/v1/rerank": lambda count: {"model": M, "query": "a", "documents": [""] * (count * 20)},
}


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    adapters = {**ADAPTERS, **finder_adapter.ADAPTERS}
    models: dict[str, Any] = {M: {}, FINDER: {"adapter": "finder", "tasks": {"extract": {}}}}
    async with served(write_catalog(tmp_path, models, adapters), adapters, max_queue_items=MOST) as each:
        yield each


@pytest.mark.parametrize("path", BODIES)
async def test_one_item_too_many_is_refused_with_the_limit_whatever_the_items_are(worker: Served, path: str) -> None:
    reply = await worker.http.post(path, json=BODIES[path](MOST + 1), headers={"accept": JSON})
    assert (code_of(reply), reply.status_code) == ("INPUT_TOO_LONG", 413)
    assert str(1000 if "score" in path or "rerank" in path else MOST) in reply.json()["error"]["message"]


async def test_too_many_lists_of_token_ids_are_refused_before_they_are_read(worker: Served) -> None:
    reply = await worker.http.post("/v1/embeddings", json={"model": M, "input": [[1]] * (MOST + 1)})
    assert code_of(reply) == "INPUT_TOO_LONG"
    assert reply.json()["error"]["param"] == "input"


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_of_too_many_values_is_not_decoded(worker: Served, path: str) -> None:
    body = {**BODIES[path](1), "model": M, "metadata": [0] * (MAX_VALUES + 1)}
    reply = await worker.http.post(path, json=body)
    assert (code_of(reply), reply.status_code) == ("INPUT_TOO_LONG", 413)
    if path.startswith("/v1/encode"):
        content = msgspec.msgpack.encode(body)
        assert code_of(await worker.http.post(path, content=content, headers={"content-type": MSGPACK})) == code_of(
            reply
        )
