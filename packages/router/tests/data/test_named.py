import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, MODEL, status
from router_fakes import Exchange, FakeWorker, Served, eventually, served, settings
from sie_protocol.errors import Problem
from sie_router.control.catalog_files import read_catalog
from sie_router.core.demand import wanted
from sie_router.core.events import CatalogPut
from sie_router.data.admission import Admission
from sie_router.data.body import REPLAY_BYTES, Body, Message
from sie_router.data.named import model_named, rename
from sie_router.settings import AuthSettings

MakeWorker = Callable[..., Awaitable[FakeWorker]]
CATALOG = Path(__file__).parents[3] / "server/src/sie_server/catalog"
WARM = status("w", loaded=[MODEL])


async def post(router: Served, body: Any, path: str = "/v1/embeddings", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=router.url, timeout=20) as client:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await client.post(path, content=content, headers=headers)


async def test_the_body_names_the_model_and_passes_unchanged(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    body = b'{ "input": ["a", {"model": "no"}], "model":"BAAI/bge-m3","x":1e3}'
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        for path in ("/v1/embeddings", "/v1/rerank", "/v2/rerank"):
            assert (await post(router, body, path + "?a=1")).content == body
    assert [request.target for request in worker.seen] == ["/v1/embeddings?a=1", "/v1/rerank?a=1", "/v2/rerank?a=1"]
    assert [(each.operation, each.model) for each in router.outcomes] == [
        ("embeddings", MODEL),
        ("rerank", MODEL),
        ("rerank", MODEL),
    ]


async def test_a_worker_hears_the_models_own_id(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker, models_dir=CATALOG / "models", bundles_dir=CATALOG / "bundles")) as router:
        await eventually(lambda: router.healthy() == 1)
        for _ in range(2):  # the second time by the fast path
            await post(router, {"input": "default:/x", "model": "DEFAULT:/intfloat/E5-small-v2"})
    heard = [msgspec.json.decode(request.body) for request in worker.seen]
    assert heard == [{"input": "default:/x", "model": "intfloat/e5-small-v2"}] * 2


async def test_a_body_beyond_the_replay_bound_is_still_read_whole(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    body = msgspec.json.encode({"input": "x" * REPLAY_BYTES, "model": MODEL})
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        assert (await post(router, body)).content == body
        too_long = await post(router, b" " * (router.app._settings.max_body_bytes + 1))
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (413, "INPUT_TOO_LONG")


async def test_a_compressed_body_is_called_so_and_not_a_malformed_one() -> None:
    async with served(settings()) as router:
        answer = await post(router, {"model": MODEL, "input": "a"}, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_INPUT")
    assert "compressed (Content-Encoding: gzip)" in answer.json()["error"]["message"]


async def test_a_refused_worker_is_replaced_by_another(make_worker: MakeWorker) -> None:
    async def full(exchange: Exchange) -> None:
        exchange.refuse("QUEUE_FULL")

    first, second = await make_worker(WARM, full), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router, {"model": MODEL})
    assert (answer.status_code, answer.headers["x-sie-worker"]) == (200, "second")


@pytest.mark.parametrize("version", [None, "0.1.10", "0.10.1"])
async def test_without_a_worker_the_answer_is_always_a_503_and_creates_demand(version: str | None) -> None:
    headers = {"X-SIE-Wait": "0"} if version is None else {"X-SIE-Wait": "0", "X-SIE-SDK-Version": version}
    async with served(settings()) as router:
        answer = await post(router, {"model": MODEL, "input": "a"}, **headers)
        assert wanted(router.app.store.snapshot(), 0)[L4, "default"] == 1
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (503, "PROVISIONING", "server_error")
    assert int(answer.headers["retry-after"]) >= 3
    assert router.outcomes[0].provisioning


async def test_no_delay_is_longer_than_clients_of_openai_obey() -> None:
    asked, at_once = {"model": MODEL, "input": "a"}, {"X-SIE-Wait": "0"}
    async with served(settings(retry_after_s=120)) as router:
        delays = [int((await post(router, asked, **at_once)).headers["retry-after"]) for _ in range(20)]
    assert 48 <= min(delays) <= max(delays) <= 60


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "INVALID_INPUT", None),
        (b"", "INVALID_INPUT", None),
        (b"[]", "INVALID_INPUT", None),
        (b'{"input": "a"}', "INVALID_INPUT", "model"),
        (b'{"model": 5}', "INVALID_INPUT", "model"),
        (b'{"model": ""}', "INVALID_INPUT", "model"),
        (b'{"model": "org/none"}', "MODEL_NOT_FOUND", "model"),
        (b'{"model": "none:/intfloat/e5-small-v2"}', "BUNDLE_CONFLICT", "model"),
    ],
)
async def test_refusals_are_where_those_clients_look(body: bytes, code: str, param: str | None) -> None:
    async with served(settings()) as router:
        router.app.store.publish(CatalogPut(read_catalog(CATALOG / "models", CATALOG / "bundles")))
        answer = await post(router, body)
        assert not any(wanted(router.app.store.snapshot(), 0).values())
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert answer.headers["x-sie-error-code"] == code


async def test_other_methods_and_missing_tokens_are_refused_in_that_shape() -> None:
    async with served(settings(auth=AuthSettings(("secret",)))) as router, httpx.AsyncClient() as client:
        unknown = await client.post(f"{router.url}/v1/embeddings", json={"model": MODEL})
        wrong = await client.get(f"{router.url}/v1/embeddings", headers={"authorization": "Bearer secret"})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (401, "authentication_error")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    fields=st.dictionaries(st.text(), json_values),
    name=st.text(min_size=1).filter(lambda t: ":/" not in t),
    to=st.text(),
)
def test_renaming_changes_the_model_and_nothing_else(fields: dict[str, Any], name: str, to: str) -> None:
    async def empty() -> Message:
        return {"type": "http.request", "body": msgspec.json.encode({**fields, "model": f"b:/{name}"})}

    body = Body(empty, None, 1 << 20, Admission(1, 1 << 20))
    asyncio.run(body.fill(60))
    asked = model_named(body.data)
    assert (asked.bundle, asked.name) == ("b", name)
    rename(body, asked, to)
    assert msgspec.json.decode(body.data) == {**fields, "model": to}
    assert body.wire_length == len(body.data)


@given(st.binary())
def test_any_bytes_are_a_model_or_a_refusal(data: bytes) -> None:
    with suppress(Problem):
        assert model_named(data).name
