from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from router_builders import MODEL, catalog, status
from router_fakes import Exchange, FakeWorker, Served, eventually, served, settings
from sie_router.core.catalog import known_models
from sie_router.core.events import CatalogPut
from sie_router.core.fleet import Group

MakeWorker = Callable[..., Awaitable[FakeWorker]]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(router: Served) -> Series:
    async with httpx.AsyncClient(base_url=router.url) as client:
        text = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((f"sie_router_{name}", frozenset(labels.items())))


async def post(router: Served, path: str = f"/v1/encode/{MODEL}", **headers: str) -> int:
    async with httpx.AsyncClient(base_url=router.url) as client:
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        return (await client.post(path, content=b"{}", headers=names)).status_code


L4 = {"machine_profile": "l4", "bundle": "default"}
A100 = {"machine_profile": "a100", "bundle": "default"}
OTHER = {"machine_profile": "other", "bundle": "other"}


async def test_every_configured_group_has_its_series_from_the_start() -> None:
    groups = (Group("l4", "default"), Group("a100", "default"))
    async with served(settings(groups=groups)) as router:
        series = await scrape(router)
    for labels in (L4, A100):
        assert value(series, "pending_demand", pool="default", **labels) == 0
        assert value(series, "recent_requests", pool="default", **labels) == 0
        assert value(series, "unserved_requests", **labels) == 0
        profile = labels["machine_profile"]
        assert value(series, "provisioning_responses_total", machine_profile=profile) == 0
    assert value(series, "workers", status="healthy") == 0
    assert any(name == "process_cpu_seconds_total" for name, _ in series)


async def test_every_answer_is_counted_once(make_worker: MakeWorker) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.reply(400, b"{}")

    worker = await make_worker(status("w"), refuse)
    async with served(settings(worker, groups=(Group("l4", "default"), Group("a100", "default")))) as router:
        await eventually(lambda: router.healthy() == 1)
        assert await post(router) == 400
        assert await post(router, X_SIE_MACHINE_PROFILE="a100") == 202
        assert await post(router, X_SIE_MACHINE_PROFILE="a100", X_SIE_SDK_Version="0.10.1") == 503
        assert await post(router, X_SIE_MACHINE_PROFILE="h100") == 503
        assert await post(router, "/v1/score/") == 400
        series = await scrape(router)
    counts = {key: count for key, count in series.items() if key[0] == "sie_router_requests_total"}
    assert sum(counts.values()) == 5
    assert value(series, "requests_total", endpoint="encode", status="400", **L4) == 1
    assert value(series, "requests_total", endpoint="encode", status="202", **A100) == 1
    assert value(series, "requests_total", endpoint="encode", status="503", **A100) == 1
    assert value(series, "requests_total", endpoint="encode", status="503", **OTHER) == 1
    assert value(series, "requests_total", endpoint="score", status="400", **OTHER) == 1
    assert value(series, "provisioning_responses_total", machine_profile="a100") == 2
    assert value(series, "request_latency_seconds_count", endpoint="encode", machine_profile="a100") == 2
    assert value(series, "pending_demand", pool="default", **A100) == 1
    assert value(series, "pending_demand", pool="default", **L4) == 0
    assert value(series, "unserved_requests", **A100) == 2
    assert value(series, "recent_requests", pool="default", **L4) == 1


async def test_a_scrape_changes_nothing(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", depth=3))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        await post(router)
        before = router.app.store.snapshot()
        own = [{key: at for key, at in (await scrape(router)).items() if key[0].startswith("sie_")} for _ in range(2)]
        assert own[0] == own[1]
        assert router.app.store.snapshot().demand is before.demand


async def test_the_series_of_a_dead_worker_disappear(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", depth=50, loaded=[MODEL]))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        series = await scrape(router)
        assert value(series, "worker_queue_depth", worker="w", pool="default", **L4) == 50
        assert value(series, "model_workers", model=MODEL) == 1
        worker.kill()
        await eventually(lambda: router.healthy() == 0)
        series = await scrape(router)
    assert value(series, "worker_queue_depth", worker="w", pool="default", **L4) is None
    assert value(series, "worker_memory_used_bytes", worker="w", **L4) is None
    assert value(series, "model_workers", model=MODEL) is None
    assert value(series, "workers", status="unhealthy") == 1


async def test_workers_of_one_name_have_series_of_their_own_wherever_they_are(make_worker: MakeWorker) -> None:
    workers = [await make_worker(status("w", depth=depth)) for depth in (5, 7)]
    workers.append(await make_worker(status("other", depth=1)))
    async with served(settings(*workers)) as router:
        await eventually(lambda: router.healthy() == 3)
        series = await scrape(router)
        depths = {dict(labels)["worker"]: found for (name, labels), found in series.items() if name.endswith("depth")}
        assert depths == {f"w@127.0.0.1:{each.port}": each.frame.queue_depth for each in workers[:2]} | {"other": 1}
        workers[0].kill()
        await eventually(lambda: router.healthy() == 2)
        left = {dict(labels)["worker"] for name, labels in await scrape(router) if name.endswith("breaker_open")}
    assert left == {f"w@127.0.0.1:{workers[1].port}", "other"}


async def test_every_router_exports_the_same_leases_and_they_die_with_the_pool(tmp_path: Path) -> None:
    more = {"pools_file": tmp_path / "pools.json", "groups": (Group("l4", "default"), Group("a100", "default"))}
    asked = {"name": "t", "gpus": {"l4": 2, "a100": 1}, "minimum_worker_count": 3}
    async with served(settings(**more)) as one, served(settings(**more)) as two:
        async with httpx.AsyncClient(base_url=one.url) as client:
            await client.post("/v1/pools", json=asked)
        await eventually(lambda: "t" in two.app.store.snapshot().pools)
        for router in (one, two):
            series = await scrape(router)
            leases = [value(series, "active_lease_gpus", **labels) for labels in (L4, A100)]
            floors = [value(series, "warm_floor_workers", **labels) for labels in (L4, A100)]
            assert (leases, floors) == ([2, 1], [2, 1])
            assert value(series, "pending_demand", pool="t", **L4) == 0
            assert value(series, "pools") == 1
        assert await post(two, X_SIE_Pool="t", X_SIE_MACHINE_PROFILE="a100") == 202
        series = await scrape(two)
        assert value(series, "pending_demand", pool="t", **A100) == 1
        assert value(series, "pending_demand", pool="default", **A100) == 0
        async with httpx.AsyncClient(base_url=two.url) as client:
            await client.delete("/v1/pools/t")
        await eventually(lambda: not one.app.store.snapshot().pools)
        for router in (one, two):
            series = await scrape(router)
            assert value(series, "active_lease_gpus", **L4) == 0
            assert value(series, "pending_demand", pool="t", **A100) is None


async def test_what_runs_for_a_pool_is_told_apart_until_the_pool_ends(make_worker: MakeWorker) -> None:
    workers = [await make_worker(status(f"w-{number}", depth=number + 1)) for number in range(2)]
    async with served(settings(*workers)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 2)
        await client.post("/v1/pools", json={"name": "t", "gpus": {"l4": 1}})
        assert [await post(router, X_SIE_Pool="t"), await post(router)] == [200, 200]
        series = await scrape(router)
        assert value(series, "worker_queue_depth", worker="w-0", pool="t", **L4) == 1
        assert value(series, "worker_queue_depth", worker="w-1", pool="default", **L4) == 2
        assert [value(series, "recent_requests", pool=pool, **L4) for pool in ("t", "default")] == [1, 1]
        await client.delete("/v1/pools/t")
        router.app._pass_time()
        series = await scrape(router)
        assert value(series, "worker_queue_depth", worker="w-0", pool="default", **L4) == 1
        assert [value(series, "recent_requests", pool=pool, **L4) for pool in ("t", "default")] == [None, 1]


async def test_callers_cannot_make_series() -> None:
    async with served(settings()) as router:
        await post(router)
        before = len(await scrape(router))
        for number in range(20):
            await post(router, f"/v1/encode/m{number}", X_SIE_Pool=f"p{number}")
            await post(router, f"/v1/encode/m{number}", X_SIE_MACHINE_PROFILE=f"g{number}")
        # two more statuses under `other`, and the latency histogram of `other`
        assert len(await scrape(router)) == before + 2 + 14


async def test_a_worker_with_another_catalogue_is_told_of(make_worker: MakeWorker) -> None:
    own = known_models(catalog()).config_hash("default")
    same = await make_worker(msgspec.structs.replace(status("same"), bundle_config_hash=own))
    other = await make_worker(msgspec.structs.replace(status("other"), bundle_config_hash="other"))
    silent = await make_worker(status("silent"))
    async with served(settings(same, other, silent)) as router:
        await eventually(lambda: router.healthy() == 3)
        router.app.store.publish(CatalogPut(catalog()))
        series = await scrape(router)
    labels = {"machine_profile": "l4", "bundle": "default"}
    found = {
        name: value(series, "worker_config_mismatch", worker=name, **labels) for name in ("same", "other", "silent")
    }
    assert found == {"same": 0, "other": 1, "silent": 0}
