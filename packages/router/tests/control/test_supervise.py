import httpx
import pytest

from router_fakes import eventually, served, settings


async def test_what_fails_is_begun_again_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def fail_at_first() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise RuntimeError("a bug")

    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        start = (await client.get("/metrics")).text
        assert 'sie_router_task_restarts_total{task="clock"} 0.0' in start
        router.app.store.watch(fail_at_first)  # nothing but the clock publishes here
        await eventually(lambda: calls > 3)
        assert 'sie_router_task_restarts_total{task="clock"} 2.0' in (await client.get("/metrics")).text
        assert 'sie_router_task_restarts_total{task="workers"} 0.0' in start
    failed = [record for record in caplog.records if "'clock' failed" in record.getMessage()]
    assert [record.exc_info is not None for record in failed] == [True, True]
