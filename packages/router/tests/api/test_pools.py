import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from router_builders import L4, MODEL, pool, status
from router_fakes import FakeWorker, Served, eventually, served, settings
from sie_protocol.errors import ErrorCode
from sie_router.core.fleet import Group
from sie_router.settings import AuthSettings

MakeWorker = Callable[..., Awaitable[FakeWorker]]
GROUPS = (L4, Group("a100-spot", "default"))
TENANT = {"name": "tenant-abc", "gpus": {"l4": 1}}
AUTH = AuthSettings(("alice", "bob"), "root")


@asynccontextmanager
async def clients(*workers: FakeWorker, **more: Any) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    async with (
        served(settings(*workers, **({"groups": GROUPS} | more))) as router,
        httpx.AsyncClient(base_url=router.url, timeout=20) as client,
    ):
        await eventually(lambda: router.healthy() == len(workers))
        yield router, client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_the_life_of_a_pool(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0", loaded=[MODEL]))
    async with clients(worker) as (_, client):
        made = await client.post("/v1/pools", json={**TENANT, "gpus": {"L4": 1}, "pinned_models": ["x"]})
        info = made.json()
        assert made.status_code == 201
        assert info == {
            "name": "tenant-abc",
            "spec": {"gpus": {"l4": 1}, "minimum_worker_count": 0},
            "status": {
                "state": "active",
                "assigned_workers": [{"name": "l4-0", "url": worker.url, "gpu": "l4"}],
                "created_at": info["status"]["created_at"],
                "last_renewed": info["status"]["created_at"],
                "lease_duration_s": 1200.0,
            },
        }
        assert (await client.get("/v1/pools/Tenant-ABC")).json() == info
        assert (await client.get("/v1/pools")).json() == {
            "pools": [
                {"name": "default", "state": "active", "gpus": {}, "worker_count": 0},
                {"name": "tenant-abc", "state": "active", "gpus": {"l4": 1}, "worker_count": 1},
            ]
        }
        renewed = await client.post("/v1/pools/tenant-abc/renew", headers={"Content-Type": "application/msgpack"})
        assert renewed.json() == {"message": "Lease renewed for pool 'tenant-abc'"}
        after = (await client.get("/v1/pools/tenant-abc")).json()["status"]
        assert after["last_renewed"] > after["created_at"] == info["status"]["created_at"]
        gone = await client.delete("/v1/pools/tenant-abc")
        assert (gone.status_code, gone.json()) == (200, {"message": "Pool 'tenant-abc' deleted"})
        assert (await client.get("/v1/pools/tenant-abc")).status_code == 404


async def test_asking_again_changes_the_pool_and_renews_it() -> None:
    async with clients() as (_, client):
        first = (await client.post("/v1/pools", json=TENANT)).json()
        body = msgspec.msgpack.encode({**TENANT, "gpus": {"a100": 2}, "minimum_worker_count": 1})
        again = await client.post("/v1/pools", content=body, headers={"Content-Type": "application/msgpack"})
        assert again.status_code == 200
        assert again.json()["spec"] == {"gpus": {"a100-spot": 2}, "minimum_worker_count": 1}
        assert again.json()["status"]["state"] == "pending"
        assert again.json()["status"]["created_at"] == first["status"]["created_at"]
        assert again.json()["status"]["last_renewed"] > first["status"]["last_renewed"]


async def test_both_sides_are_isolated(make_worker: MakeWorker) -> None:
    one = await make_worker(status("l4-0", loaded=[MODEL]))
    two = await make_worker(status("l4-1", loaded=[MODEL]))
    async with clients(one, two) as (_, client):
        await client.post("/v1/pools", json=TENANT)
        path = f"/v1/encode/{MODEL}"
        for _ in range(5):
            for headers in ({"X-SIE-Pool": "tenant-abc"}, {"X-SIE-MACHINE-PROFILE": "Tenant-ABC/L4"}):
                answer = await client.post(path, content=b"{}", headers=headers)
                assert answer.headers["x-sie-worker"] == "l4-0"
                assert one.seen[-1].header("x-sie-machine-profile") == "l4"
                assert one.seen[-1].header("x-sie-pool") is None
            assert (await client.post(path, content=b"{}")).headers["x-sie-worker"] == "l4-1"
        one.kill()
        await client.post(path, content=b"{}", headers={"X-SIE-Pool": "tenant-abc"})
        waiting = await client.post(path, content=b"{}", headers={"X-SIE-Pool": "tenant-abc"})
        assert (waiting.status_code, waiting.json()["gpu"]) == (202, "l4")
        assert len(two.seen) == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "object"),
        (b"{}", "name"),
        (b'{"name": 5}', "name"),
        (b'{"name": "a", "gpus": []}', "gpus"),
        (b'{"name": "a_b", "gpus": {"l4": 1}}', "'a_b' is no pool name"),
        (b'{"name": "default", "gpus": {"l4": 1}}', "choose another name"),
        (b'{"name": "a"}', "at least one worker"),
        (b'{"name": "a", "gpus": {"l4": 0}}', "gpus.l4 is 0"),
        (b'{"name": "a", "gpus": {"l4": true}}', "gpus"),
        (b'{"name": "a", "gpus": {"l4": 65}}', "may reserve 64"),
        (b'{"name": "a", "gpus": {"l4": 1, "L4": 1}}', "twice"),
        (b'{"name": "a", "gpus": {"h100": 1}}', "a100-spot:default, l4:default"),
        (b'{"name": "a", "gpus": {"l4": 1}, "bundle": "vision"}', "with bundle 'vision'"),
        (b'{"name": "a", "gpus": {"l4": 1}, "minimum_worker_count": -1}', "minimum_worker_count is -1"),
        (b'{"name": "a", "gpus": {"l4": 1}, "minimum_worker_count": 2}', "expected 0 to 1"),
        (b'{"name": "a", "gpus": {"l4": 1}, "minimum_worker_count": true}', "minimum_worker_count"),
    ],
)
async def test_what_cannot_be_reserved_is_said_in_the_one_envelope(body: bytes, said: str) -> None:
    async with clients() as (router, client):
        answer = await client.post("/v1/pools", content=body)
        assert answer.status_code == 400
        assert answer.json()["detail"]["code"] == answer.headers["x-sie-error-code"] == "INVALID_INPUT"
        assert said in answer.json()["detail"]["message"]
        assert not router.app.store.snapshot().pools


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/pools/none", ErrorCode.POOL_NOT_FOUND),
        ("GET", "/v1/pools/no%20name", ErrorCode.POOL_NOT_FOUND),
        ("DELETE", "/v1/pools/none", ErrorCode.POOL_NOT_FOUND),
        ("POST", "/v1/pools/none/renew", ErrorCode.POOL_NOT_FOUND),
        ("DELETE", "/v1/pools/Default", ErrorCode.INVALID_INPUT),
        ("PUT", "/v1/pools/none", ErrorCode.METHOD_NOT_ALLOWED),
    ],
)
async def test_refusals_of_pool_calls(method: str, path: str, code: ErrorCode) -> None:
    async with clients() as (_, client):
        answer = await client.request(method, path)
        assert answer.json()["detail"]["code"] == code


async def test_the_default_pool_is_whatever_nobody_reserved(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0"))
    async with clients(worker) as (_, client):
        info = (await client.get("/v1/pools/default")).json()
        assert info["status"]["assigned_workers"] == [{"name": "l4-0", "url": worker.url, "gpu": "l4"}]
        assert (await client.post("/v1/pools/default/renew")).status_code == 200
        await client.post("/v1/pools", json=TENANT)
        assert (await client.get("/v1/pools/default")).json()["status"]["assigned_workers"] == []


async def test_there_are_never_more_pools_than_allowed() -> None:
    async with clients(max_pools=2) as (_, client):
        names = [f"p{number}" for number in range(6)]
        codes = [(await client.post("/v1/pools", json={**TENANT, "name": name})).status_code for name in names]
        assert codes == [201, 201, 503, 503, 503, 503]
        assert (await client.post("/v1/pools", json={**TENANT, "name": "p0"})).status_code == 200
        refused = await client.post("/v1/pools", json=TENANT)
        assert refused.headers["x-sie-error-code"] == "RESOURCE_EXHAUSTED"
        await client.delete("/v1/pools/p0")
        assert (await client.post("/v1/pools", json=TENANT)).status_code == 201
        too_long = await client.post("/v1/pools", content=b" " * 70_000)
        assert too_long.status_code == 413


async def test_one_token_cannot_take_everything_from_the_others() -> None:
    async with clients(auth=AUTH, max_pools=9, max_pools_per_owner=2, max_workers_per_owner=5) as (_, client):

        async def make(token: str, name: str, count: int) -> httpx.Response:
            asked = {"name": name, "gpus": {"l4": count}}
            return await client.post("/v1/pools", json=asked, headers=bearer(token))

        codes = [(await make("alice", name, count)).status_code for name, count in (("a", 1), ("b", 2), ("b", 3))]
        assert codes == [201, 201, 200]
        third, larger = await make("alice", "c", 1), await make("alice", "b", 5)
        for refused, limit in ((third, "one token may have 2"), (larger, "one token may reserve 5")):
            assert (refused.status_code, refused.headers["x-sie-error-code"]) == (503, "RESOURCE_EXHAUSTED")
            assert limit in refused.json()["error"]["message"]
        assert (await make("bob", "d", 5)).status_code == 201
        assert (await make("bob", "a", 1)).status_code == 403  # not a matter of bounds
        assert [(await make("root", name, 9)).status_code for name in ("e", "f", "g")] == [201] * 3
        assert (await make("alice", "b", 4)).status_code == 200


async def test_many_at_once_do_not_exceed_the_bounds_of_a_token(tmp_path: Path) -> None:
    async with clients(auth=AUTH, max_pools_per_owner=2, pools_file=tmp_path / "pools.json") as (router, client):
        await eventually(lambda: not router.app.store.snapshot().unheard)
        asked = [{**TENANT, "name": f"p{number}"} for number in range(6)]
        made = await asyncio.gather(*(client.post("/v1/pools", json=each, headers=bearer("alice")) for each in asked))
        assert sorted(each.status_code for each in made) == [201, 201, 503, 503, 503, 503]


async def test_looking_changes_nothing(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0"))
    async with clients(worker) as (router, client):
        await client.post("/v1/pools", json=TENANT)
        before = router.app.store.snapshot()
        for path in ("/v1/pools", "/v1/pools/tenant-abc", "/v1/pools/none", "/v1/pools/default"):
            await client.get(path)
        after = router.app.store.snapshot()
        assert after.pools is before.pools
        assert after.index is before.index


async def test_a_pool_belongs_to_the_token_that_made_it(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0", loaded=[MODEL]))
    async with clients(worker, auth=AUTH) as (_, client):
        made = await client.post("/v1/pools", json=TENANT, headers=bearer("alice"))
        assert made.status_code == 201
        assert "alice" not in made.text
        path, into = f"/v1/encode/{MODEL}", {"X-SIE-Pool": "tenant-abc"}
        for token, expected in (("bob", 403), ("root", 200), ("alice", 200)):
            codes = {
                (await client.get("/v1/pools/tenant-abc", headers=bearer(token))).status_code,
                (await client.post("/v1/pools/tenant-abc/renew", headers=bearer(token))).status_code,
                (await client.post("/v1/pools", json=TENANT, headers=bearer(token))).status_code,
                (await client.post(path, content=b"{}", headers=into | bearer(token))).status_code,
            }
            assert codes == {expected}
            listed = (await client.get("/v1/pools", headers=bearer(token))).json()["pools"]
            assert len(listed) == (1 if expected == 403 else 2)
        refused = await client.delete("/v1/pools/tenant-abc", headers=bearer("bob"))
        assert (refused.status_code, refused.json()["detail"]["code"]) == (403, "FORBIDDEN")
        assert (await client.delete("/v1/pools/tenant-abc", headers=bearer("root"))).status_code == 200


async def test_pools_are_shared_through_a_file_and_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    async with clients(pools_file=path) as (_, one), clients(pools_file=path) as (_, two):
        await one.post("/v1/pools", json=TENANT)
        into = {"X-SIE-Pool": "tenant-abc"}
        assert (await two.post(f"/v1/encode/{MODEL}", content=b"{}", headers=into)).status_code == 202
        assert (await two.get("/v1/pools/tenant-abc")).status_code == 200
    async with clients(pools_file=path) as (router, three):
        await eventually(lambda: "tenant-abc" in router.app.store.snapshot().pools)
        assert (await three.delete("/v1/pools/tenant-abc")).status_code == 200


async def test_a_pool_that_nobody_renews_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    now = time.time()
    path.write_bytes(msgspec.json.encode([pool("old", last_renewed=now - 1300), pool("young", last_renewed=now)]))
    async with clients(pools_file=path) as (_, client):
        await eventually(lambda: b"old" not in path.read_bytes())
        assert (await client.get("/v1/pools/old")).status_code == 404
        assert (await client.get("/v1/pools/young")).status_code == 200


async def test_the_status_shows_the_pools_that_its_reader_may_use(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("l4-0"))
    async with clients(worker, auth=AUTH) as (_, client):
        assert (await client.post("/v1/pools", json=TENANT, headers=bearer("alice"))).status_code == 201
        both = ["default", "tenant-abc"]
        for token, names in (("alice", both), ("root", both), ("bob", ["default"])):
            seen = (await client.get("/health", headers=bearer(token))).json()
            assert [pool["name"] for pool in seen["pools"]] == names
            page = (await client.get("/", headers=bearer(token))).text
            assert ("tenant-abc" in page) == (len(names) == 2)
        mine = (await client.get("/health", headers=bearer("alice"))).json()
        assert 1200 < mine["pools"][1].pop("lease_s") <= 1230
        assert mine["pools"] == [
            {"name": "default", "state": "active", "gpus": {}, "worker_count": 0, "lease_s": None},
            {"name": "tenant-abc", "state": "active", "gpus": {"l4": 1}, "worker_count": 1},
        ]
        assert mine["workers"][0]["breaker"] == "closed"
        assert (await client.get("/")).status_code == 401
