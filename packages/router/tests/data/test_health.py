from collections.abc import Awaitable, Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router_builders import L4, MODEL, fleet, seen, status, url
from router_fakes import Exchange, FakeWorker, Served, eventually, served, settings
from sie_router.control.store import FleetStore
from sie_router.core.events import Event, Tick, WorkerGone
from sie_router.core.fleet import Fleet
from sie_router.core.health import IN_A_ROW, LONGEST_OPEN_S, Phase, Verdict
from sie_router.data.health import OutlierDetector

MakeWorker = Callable[..., Awaitable[FakeWorker]]


class Bench:
    """A detector and a store of two workers under a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = FleetStore(fleet(seen("a"), seen("b")), lambda: self.now)
        self.publications = 0
        self.detector = OutlierDetector(self.publish, lambda: self.now, lambda: 0.5)

    def publish(self, event: Event) -> None:
        self.publications += 1
        self.store.publish(event)

    @property
    def fleet(self) -> Fleet:
        return self.store.snapshot()

    def phase(self) -> Phase:
        return self.fleet.workers[url("a")].health.phase

    def report(self, *said: Verdict) -> None:
        for each in said:
            self.detector.sent(self.fleet.workers[url("a")])
            self.detector.report(self.fleet.workers[url("a")], each)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for name in ("a", "b"):
            self.store.publish(seen(name))
        self.store.publish(Tick())


def test_outcomes_are_published_only_when_the_phase_changes() -> None:
    bench = Bench()
    bench.report(*[Verdict.GOOD] * 100, *[Verdict.BAD] * (IN_A_ROW - 1))
    assert bench.publications == 0
    bench.report(Verdict.BAD)
    assert (bench.publications, bench.phase()) == (1, Phase.OPEN)
    assert bench.detector.ejections == {L4: 1}


def test_one_probe_decides_about_the_return() -> None:
    bench = Bench()
    bench.report(*[Verdict.BAD] * IN_A_ROW)
    bench.wait(LONGEST_OPEN_S)
    assert url("a") in bench.fleet.scope().by_group[L4.key].urls
    bench.detector.sent(bench.fleet.workers[url("a")])
    assert bench.fleet.scope().by_group[L4.key].urls == (url("b"),)
    bench.detector.report(bench.fleet.workers[url("a")], Verdict.BAD)
    assert bench.phase() is Phase.OPEN
    bench.wait(LONGEST_OPEN_S)
    bench.report(Verdict.NEUTRAL)
    assert bench.phase() is Phase.HALF_OPEN
    bench.report(Verdict.GOOD)
    assert bench.phase() is Phase.CLOSED
    assert bench.fleet.workers[url("a")].weight < 1


def test_the_book_forgets_workers_that_are_gone() -> None:
    bench = Bench()
    bench.report(*[Verdict.BAD] * (IN_A_ROW - 1))
    bench.detector.forget({})
    bench.report(Verdict.BAD)
    assert bench.phase() is Phase.CLOSED


def test_a_worker_that_went_while_ejected_and_came_back_is_judged_anew() -> None:
    bench = Bench()
    for ejections in (1, 2):
        bench.report(*[Verdict.BAD] * IN_A_ROW)
        bench.detector.forget(bench.fleet.workers)
        assert (bench.phase(), bench.detector.ejections) == (Phase.OPEN, {L4: ejections})
        bench.store.publish(WorkerGone(url("a")))
        bench.store.publish(seen("a"))
        bench.detector.forget(bench.fleet.workers)
    assert bench.phase() is Phase.CLOSED


async def fail(exchange: Exchange) -> None:
    exchange.reply(500, b"{}")


async def broken_model(exchange: Exchange) -> None:
    exchange.reply(502, b"{}", X_SIE_Error_Code="MODEL_LOAD_FAILED")


async def post(router: Served, times: int = 1) -> list[int]:
    async with httpx.AsyncClient(base_url=router.url) as client:
        return [(await client.post(f"/v1/encode/{MODEL}", content=b"{}")).status_code for _ in range(times)]


async def scrape(router: Served, name: str) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=router.url) as client:
        families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [each for family in families for each in family.samples if each.name == f"sie_router_{name}"]
    return {each.labels.get("worker", each.labels["machine_profile"]): each.value for each in samples}


async def test_a_worker_that_fails_fast_does_not_attract_the_load(make_worker: MakeWorker) -> None:
    bad = await make_worker(status("w-0", loaded=[MODEL]), fail)
    good = await make_worker(status("w-1", loaded=[MODEL]))
    async with served(settings(bad, good)) as router:
        await eventually(lambda: router.healthy() == 2)
        answers = await post(router, 40)
        assert answers == [200] * 40
        assert len(bad.seen) == IN_A_ROW
        assert await scrape(router, "worker_breaker_open") == {"w-0": 1, "w-1": 0}
        assert await scrape(router, "ejections_total") == {"l4": 1, "other": 0}
        assert await scrape(router, "pending_demand") == {"l4": 0}
        async with httpx.AsyncClient(base_url=router.url) as client:
            said = (await client.get("/health")).json()
        assert {each["name"]: each["healthy"] for each in said["workers"]} == {"w-0": False, "w-1": True}
        bad.kill()
        await eventually(lambda: router.healthy() == 1)
        assert await scrape(router, "worker_breaker_open") == {"w-1": 0}


@pytest.mark.parametrize("script", [fail, broken_model])
async def test_the_only_worker_is_never_ejected_and_no_other_one_is_bought(
    make_worker: MakeWorker, script: Callable[[Exchange], Awaitable[None]]
) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]), script)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answers = await post(router, 3 * IN_A_ROW)
        assert set(answers) == {500 if script is fail else 502}
        assert len(worker.seen) == 3 * IN_A_ROW
        assert await scrape(router, "pending_demand") == {"l4": 0}
        assert await scrape(router, "worker_breaker_open") == {"w": float(script is fail)}
