"""What `helm test` says: of a cluster that autoscales, and of one whose routers nobody scrapes."""

import asyncio
import json
import subprocess
import sys
from functools import partial

from chart_render import SOURCE
from prometheus_server import Prometheus, queries
from router_builders import status
from router_fakes import FakeWorker, served, settings


async def check(router: str, server: Prometheus) -> tuple[int, str]:
    """Exit code and output of the script that the chart's test pod runs."""
    environment = {"ROUTER": router, "PROMETHEUS": server.url, "QUERIES": json.dumps(queries())}
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=False)
    done = await asyncio.to_thread(run, [sys.executable, str(SOURCE / "files/check.py")])
    return done.returncode, done.stdout


async def test_it_passes_where_routers_are_scraped_and_says_what_to_do_where_not(server: Prometheus) -> None:
    worker = await FakeWorker(status("w-0", ready=False)).start()
    try:
        async with served(settings(worker)) as router:
            server.scrape([router.url])
            await server.scraped(router.url)
            await server.until({"demand": 0.0})
            code, said = await check(router.url, server)
            assert (code, set(said.splitlines())) == (0, {"router: ok", *(f"{name}: ok" for name in queries())})
            server.scrape(())
            await server.until({"demand": None})
            code, said = await check("http://127.0.0.1:9", server)
            assert code == 1
            assert said.startswith("router: http://127.0.0.1:9/readyz: ")
            assert "demand: 0 series instead of one" in said
            assert "is serviceMonitor.enabled" in said
    finally:
        await worker.close()
