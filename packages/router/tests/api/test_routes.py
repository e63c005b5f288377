import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from router_builders import MODEL, status
from router_fakes import FakeWorker, eventually, served, settings
from sie_protocol.errors import ErrorCode
from sie_protocol.status import MAX_FAILURE_CHARS, ModelFailure, ModelStatus
from sie_router.core.fleet import Group

MakeWorker = Callable[..., Awaitable[FakeWorker]]
CATALOG_MODEL = "sie_id: {id}\ntasks:\n  encode:\n    dense: {{dim: 8}}\nprofiles:\n  default: {{adapter: dense}}\n"


@pytest.fixture
def catalogue(tmp_path: Path) -> dict[str, Path]:
    models, bundles = tmp_path / "models", tmp_path / "bundles"
    models.mkdir()
    bundles.mkdir()
    (models / "a.yaml").write_text(CATALOG_MODEL.format(id=MODEL))
    (models / "b.yaml").write_text(CATALOG_MODEL.format(id="org/other"))
    (bundles / "default.yaml").write_text("name: default\nadapters: [dense]\n")
    return {"models_dir": models, "bundles_dir": bundles}


@pytest.mark.parametrize(
    ("version", "http_status", "health_type"),
    [
        (None, 202, "router"),
        ("0.1.10", 202, "router"),
        ("0.3.0", 202, "gateway"),
        ("0.6.4", 202, "gateway"),
        ("0.6.5", 503, "gateway"),
        ("0.10.1", 503, "gateway"),
        ("unknown", 202, "router"),
    ],
)
async def test_each_generation_of_clients_hears_what_it_understands(
    version: str | None, http_status: int, health_type: str
) -> None:
    headers = {} if version is None else {"X-SIE-SDK-Version": version}
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url, headers=headers) as client:
        answer = await client.post(f"/v1/encode/{MODEL}", content=b"{}")
        assert (answer.status_code, answer.headers["retry-after"]) == (http_status, "3")
        body = answer.json()
        assert (body["status"], body["gpu"], body["estimated_wait_s"]) == ("provisioning", "l4", 9)
        assert ("error" in body) == (http_status == 503)
        assert (await client.get("/health")).json()["type"] == health_type


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", "/nowhere", {}, ErrorCode.NOT_FOUND),
        ("GET", "/health/", {}, ErrorCode.NOT_FOUND),
        ("PUT", "/health", {}, ErrorCode.METHOD_NOT_ALLOWED),
        ("GET", f"/v1/encode/{MODEL}", {}, ErrorCode.METHOD_NOT_ALLOWED),
        ("POST", "/v1/encode/", {}, ErrorCode.INVALID_INPUT),
        ("POST", "/v1/encode/:/x", {}, ErrorCode.INVALID_INPUT),
        ("POST", "/v1/score/no/such", {}, ErrorCode.MODEL_NOT_FOUND),
        ("POST", f"/v1/encode/vision:/{MODEL}", {}, ErrorCode.BUNDLE_CONFLICT),
        ("POST", f"/v1/encode/{MODEL}", {"X-SIE-MACHINE-PROFILE": "h100"}, ErrorCode.GPU_NOT_CONFIGURED),
        ("POST", f"/v1/encode/{MODEL}", {"X-SIE-Pool": "tenant"}, ErrorCode.POOL_NOT_FOUND),
        ("GET", "/v1/models/no/such", {}, ErrorCode.MODEL_NOT_FOUND),
        ("GET", "/v1/models/default:/no/such", {}, ErrorCode.MODEL_NOT_FOUND),
        ("GET", f"/v1/models/vision:/{MODEL}", {}, ErrorCode.BUNDLE_CONFLICT),
    ],
)
async def test_every_error_has_the_one_envelope(
    method: str, path: str, headers: dict[str, str], code: ErrorCode, catalogue: dict[str, Path]
) -> None:
    async with served(settings(**catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        answer = await client.request(method, path, headers=headers)
        body = answer.json()
        assert body["error"] == body["detail"]
        assert body["error"]["code"] == answer.headers["x-sie-error-code"] == code
        assert body["error"]["message"]
        assert answer.headers.get_list("x-sie-server-version") == ["0.1.10"]
        assert "retry-after" not in answer.headers
        assert not router.app.store.snapshot().demand


async def test_clients_that_would_retry_a_typo_for_long_hear_it_as_one() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        heard = {
            version: await client.post(
                f"/v1/encode/{MODEL}", headers={"X-SIE-MACHINE-PROFILE": "h100", "X-SIE-SDK-Version": version}
            )
            for version in ("0.1.10", "0.6.4", "0.6.5", "unknown")
        }
    assert {version: answer.status_code for version, answer in heard.items()} == {
        "0.1.10": 400,
        "0.6.4": 400,
        "0.6.5": 503,
        "unknown": 503,
    }
    assert {answer.headers["x-sie-error-code"] for answer in heard.values()} == {"GPU_NOT_CONFIGURED"}


async def test_a_route_is_explained_and_nothing_comes_of_it(
    make_worker: MakeWorker, catalogue: dict[str, Path]
) -> None:
    worker = await make_worker(status("l4-0", loaded=[MODEL]))
    async with served(settings(worker, **catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        found = (await client.get("/v1/route/explain", params={"model": MODEL.lower(), "profile": "L4"})).json()
        assert found == {
            "decision": {"action": "forward", "worker": "l4-0", "url": worker.url},
            "model": MODEL,
            "bundles": ["default"],
            "profile": "l4",
            "pool": "default",
            "counts": {"eligible": 1},
            "workers": [
                {
                    "name": "l4-0",
                    "url": worker.url,
                    "profile": "l4",
                    "bundle": "default",
                    "why": "eligible",
                    "has_model": True,
                    "load": 0,
                }
            ],
            "workers_left_out": 0,
        }
        await client.post("/v1/pools", json={"name": "t", "gpus": {"l4": 1}})
        empty = (await client.get("/v1/route/explain", params={"model": MODEL})).json()
        assert (empty["decision"]["action"], empty["counts"]) == ("provision", {"other_pool": 1})
        assert empty["decision"]["creates_demand"]
        refused = (await client.get("/v1/route/explain", params={"model": "no/such"})).json()
        assert refused["decision"]["code"] == "MODEL_NOT_FOUND"
        assert (await client.get("/v1/route/explain")).status_code == 400
        assert not router.app.store.snapshot().demand
        assert not worker.seen


async def test_readiness_needs_no_worker_but_ends_with_draining() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "healthy_workers": 0})
        router.app.drain()
        gone = await client.get("/readyz")
        assert (gone.status_code, gone.headers["x-sie-error-code"]) == (503, "SHUTTING_DOWN")
        assert (await client.post(f"/v1/encode/{MODEL}")).status_code == 202


async def test_health_describes_the_cluster(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one", loaded=[MODEL], depth=4))
    idle = await make_worker(status("two", ready=False))
    async with served(settings(worker, idle)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: len(router.app.store.snapshot().workers) == 2)
        body = (await client.get("/health")).json()
    assert body["status"] == "healthy"
    assert body["cluster"] == {"worker_count": 1, "gpu_count": 1, "models_loaded": 1, "total_qps": 0.0}
    assert (body["configured_gpu_types"], body["live_gpu_types"]) == (["l4"], ["l4"])
    assert [(each["name"], each["healthy"], each["queue_depth"]) for each in body["workers"]] == [
        ("one", True, 4),
        ("two", False, 0),
    ]
    assert body["models"][0] == {
        "name": MODEL,
        "state": "loaded",
        "worker_count": 1,
        "gpu_types": ["l4"],
        "total_queue_depth": 4,
    }


async def test_models_join_the_catalogue_with_the_workers(make_worker: MakeWorker, catalogue: dict[str, Path]) -> None:
    worker = await make_worker(status("one", loaded=[MODEL], loading=["org/other"]))
    async with served(settings(worker, **catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        listed = (await client.get("/v1/models")).json()["models"]
        assert [(model["name"], model["state"]) for model in listed] == [(MODEL, "loaded"), ("org/other", "loading")]
        one = (await client.get("/v1/models/baai/BGE-M3")).json()
        assert (await client.get("/v1/models/Default:/baai/BGE-M3:default")).json() == one
    as_openai_does = {"id": MODEL, "object": "model", "created": 0, "owned_by": "BAAI"}
    assert one == {**listed[0], **as_openai_does}
    assert listed[0] == {
        "name": MODEL,
        "inputs": ["text"],
        "outputs": ["dense"],
        "dims": {"dense": 8},
        "loaded": True,
        "state": "loaded",
        "last_error": None,
        "max_sequence_length": None,
        "profiles": {"default": {"is_default": True}},
        "bundles": ["default"],
        "worker_count": 1,
        "workers": [worker.url],
    }


async def test_a_profile_is_described_by_what_it_gives(make_worker: MakeWorker, catalogue: dict[str, Path]) -> None:
    (catalogue["models_dir"] / "c.yaml").write_text(
        "sie_id: org/Late\ntasks: {encode: {multivector: {dim: 16}}}\nprofiles:\n"
        "  default: {adapter: dense}\n"
        "  Fixed: {adapter: dense, adapter_options: {muvera: "
        "{repetitions: 3, simhash_bits: 2, projection_dims: 4, seed: 1}}}\n"
        "  wrong: {adapter: dense, adapter_options: {muvera: {repetitions: 0}}}\n"
    )
    worker = await make_worker(status("one", loaded=["org/Late:Fixed"]))
    async with served(settings(worker, **catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        model, fixed, wrong = [
            (await client.get(f"/v1/models/org/late{profile}")).json() for profile in ("", ":FIXED", ":wrong")
        ]
        assert (await client.get("/v1/models/org/late:none")).status_code == 404
    assert (model["name"], model["dims"], model["loaded"]) == ("org/Late", {"multivector": 16}, False)
    assert (fixed["name"], fixed["dims"], fixed["loaded"]) == (
        "org/Late:Fixed",
        {"dense": 3 * 4 * 4, "multivector": 16},
        True,
    )
    assert fixed["outputs"] == ["dense", "multivector"]
    assert (wrong["dims"], wrong["profiles"]) == (model["dims"], model["profiles"])


async def test_a_model_that_failed_to_load_says_why(make_worker: MakeWorker, catalogue: dict[str, Path]) -> None:
    failure = ModelFailure(error_class="OOM", message="x" * 10_000, attempts=2)
    failed = ModelStatus(name=MODEL, aliases=(f"{MODEL}:short",), state="failed", failure=failure)
    of_old = ModelStatus(name="org/other", state="failed")  # a worker that does not say why
    worker = await make_worker(msgspec.structs.replace(status("one"), models=(failed, of_old)))
    async with served(settings(worker, **catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        one, other = (await client.get("/v1/models")).json()["models"]
    assert (one["state"], other["state"]) == ("failed", "failed")
    message = "x" * MAX_FAILURE_CHARS
    facts = {"error_class": "OOM", "message": message, "attempts": 2, "permanent": False, "worker": "one"}
    assert one["last_error"] == {"code": "MODEL_LOAD_FAILED", **facts}
    assert other["last_error"]["code"] == "MODEL_LOAD_FAILED"


async def test_without_a_catalogue_models_are_those_that_are_loaded(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one", loaded=["any/thing"]))
    async with served(settings(worker)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        assert (await client.get("/v1/models/ANY/thing")).json()["workers"] == [worker.url]


async def test_watchers_hear_of_the_cluster(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("<b>one"))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        async with connect(f"ws://127.0.0.1:{router.port}/ws/cluster-status", proxy=None) as stream:
            async with asyncio.timeout(10):
                first, second = [json.loads(await stream.recv()) for _ in range(2)]
        assert first["workers"][0]["name"] == "<b>one"
        assert 0 < second["timestamp"] - first["timestamp"] < 5
        async with httpx.AsyncClient(base_url=router.url) as client:
            page = await client.get("/")
        assert "&lt;b&gt;one" in page.text


async def test_docs_describe_the_routes() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {"/health", "/v1/models", "/metrics", "/v1/encode/{model}"} <= set(paths)
        assert (await client.get("/docs")).status_code == 200


async def test_the_default_profile_is_the_first_configured_group() -> None:
    groups = (Group("cheap", "default"), Group("dear", "default"))
    async with served(settings(groups=groups)) as router, httpx.AsyncClient(base_url=router.url) as client:
        assert (await client.post(f"/v1/encode/{MODEL}")).json()["gpu"] == "cheap"


@pytest.mark.parametrize(
    ("path", "methods"), [("/v1/pools", "GET, POST"), ("/v1/pools/x", "DELETE, GET"), ("/v1/models/a/b", "GET")]
)
async def test_a_refused_method_tells_all_that_there_are(path: str, methods: str) -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        assert (await client.put(path)).headers["allow"] == methods


async def test_a_websocket_that_is_not_there_is_refused_in_the_one_envelope() -> None:
    async with served(settings()) as router:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{router.port}/ws/status", proxy=None)
    answer = refused.value.response
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (404, "NOT_FOUND")
    assert json.loads(answer.body or b"")["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/v1/encode/{MODEL}", {"X-SIE-MACHINE-PROFILE": "p" * 5000}),
        (f"/v1/encode/{'b' * 5000}:/{MODEL}", {}),
        (f"/v1/encode/:/{'m' * 5000}", {}),
        (f"/v1/encode/{'m' * 5000}", {}),
    ],
)
async def test_a_refusal_does_not_repeat_a_long_name(
    path: str, headers: dict[str, str], catalogue: dict[str, Path]
) -> None:
    async with served(settings(**catalogue)) as router, httpx.AsyncClient(base_url=router.url) as client:
        answer = await client.post(path, headers=headers)
    assert answer.is_error
    assert len(answer.content) < 2000
