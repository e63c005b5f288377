from collections.abc import Awaitable, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import MODEL, status
from router_fakes import FakeWorker, eventually, served, settings
from sie_protocol.errors import Problem
from sie_protocol.headers import ERROR_CODE, RETRY_AFTER
from sie_router.core.pools import Caller
from sie_router.core.rate import Rate
from sie_router.data.admission import Admission
from sie_router.data.fast_path import MAX_BODY_BYTES
from sie_router.settings import AuthSettings, Flags, read_settings

MakeWorker = Callable[..., Awaitable[FakeWorker]]
PATH = f"/v1/encode/{MODEL}"
RARELY = Rate(per_s=0.001, burst=3)  # so that no test sees the second burst


def as_caller(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("size", [2, MAX_BODY_BYTES + 1])  # both ways through the router
async def test_each_caller_has_a_rate_of_its_own(make_worker: MakeWorker, size: int) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    auth = AuthSettings(tokens=("one", "other"))
    async with (
        served(settings(worker, rate=RARELY, auth=auth)) as router,
        httpx.AsyncClient(base_url=router.url) as client,
    ):
        await eventually(lambda: router.healthy() == 1)
        answers = [await client.post(PATH, content=b"x" * size, headers=as_caller("one")) for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        assert answers[3].headers[ERROR_CODE] == "RATE_LIMITED"
        assert int(answers[3].headers[RETRY_AFTER]) > 100
        assert (await client.post(PATH, content=b"x" * size, headers=as_caller("other"))).status_code == 200
        assert (await client.post(PATH, content=b"x", headers=as_caller("nobody"))).status_code == 401
        assert len(worker.seen) == 4
        assert [each.status for each in router.outcomes].count(429) == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.5, 3.0])), max_size=60))
def test_forgetting_callers_changes_nothing_for_any_and_bounds_them(asks: list[tuple[int, float]]) -> None:
    rate, now = Rate(per_s=1, burst=2), 0.0
    forgets, knows = Admission(10**9, 0, rate, least_due=1), Admission(10**9, 0, rate)
    for who, pause_s in asks:
        now += pause_s
        caller, said = Caller(str(who)), []
        for admission in (forgets, knows):
            try:
                admission.enter(caller, now)
            except Problem as problem:
                said.append(problem.retry_after_s)
            else:
                said.append(None)
        assert said[0] == said[1]
    for number in range(1000):
        now += 2
        forgets.enter(Caller(f"new {number}"), now)
        assert forgets.callers <= 2 * 31, "twice as many as were ever ahead of the clock together"
    assert forgets.callers <= 2


async def test_other_services_clients_are_refused_in_their_own_words(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    async with served(settings(worker, rate=RARELY)) as router, httpx.AsyncClient(base_url=router.url) as client:
        await eventually(lambda: router.healthy() == 1)
        asked = {"model": MODEL, "input": "x"}
        answers = [await client.post("/v1/embeddings", json=asked) for _ in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert answers[3].json()["error"]["type"] == "rate_limit_error"


def test_a_burst_is_what_comes_in_a_second_unless_it_is_said() -> None:
    assert read_settings(Flags(), {}).rate is None
    assert read_settings(Flags(), {"SIE_ROUTER_RATE_LIMIT": "0"}).rate is None
    assert read_settings(Flags(), {"SIE_ROUTER_RATE_LIMIT": "2.5"}).rate == Rate(2.5, 3)
    both = {"SIE_ROUTER_RATE_LIMIT": "2.5", "SIE_ROUTER_RATE_BURST": "20"}
    assert read_settings(Flags(), both).rate == Rate(2.5, 20)


@pytest.mark.parametrize(
    "given", [{"SIE_ROUTER_RATE_LIMIT": "-1"}, {"SIE_ROUTER_RATE_LIMIT": "many"}, {"SIE_ROUTER_RATE_BURST": "5"}]
)
def test_a_rate_that_makes_no_sense_is_refused_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="SIE_ROUTER_RATE"):
        read_settings(Flags(), given)
