"""What `helm test` says: of a cluster that autoscales, and of one whose routers nobody scrapes."""

import asyncio
import json
import subprocess
import sys
from functools import partial

import yaml

from chart_render import SOURCE
from prometheus_server import QUERIES, Prometheus
from router_builders import status
from router_fakes import FakeWorker, served, settings


async def check(router: str, server: Prometheus) -> tuple[int, str]:
    """Exit code and output of the script that the chart's test pod runs."""
    queries = {name: text.replace("$profile", "l4").replace("$bundle", "default") for name, text in texts().items()}
    environment = {"ROUTER": router, "PROMETHEUS": server.url, "QUERIES": json.dumps(queries)}
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=False)
    done = await asyncio.to_thread(run, [sys.executable, str(SOURCE / "files/check.py")])
    return done.returncode, done.stdout


def texts() -> dict[str, str]:
    return dict(yaml.safe_load(QUERIES.read_text()))


async def test_it_passes_where_routers_are_scraped_and_says_what_to_do_where_not(server: Prometheus) -> None:
    worker = await FakeWorker(status("w-0", ready=False)).start()
    try:
        async with served(settings(worker)) as router:
            server.scrape([router.url])
            await server.scraped(router.url)
            await server.until({"demand": 0.0})
            code, said = await check(router.url, server)
            assert (code, set(said.splitlines())) == (0, {"router: ok", *(f"{name}: ok" for name in texts())})
            server.scrape(())
            await server.until({"demand": None})
            code, said = await check("http://127.0.0.1:9", server)
            assert code == 1
            assert said.startswith("router: http://127.0.0.1:9/readyz: ")
            assert "demand: 0 series instead of one" in said
            assert "is serviceMonitor.enabled" in said
    finally:
        await worker.close()
