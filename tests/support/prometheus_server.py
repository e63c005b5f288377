"""A real Prometheus that scrapes routers of a test, and answers the queries an autoscaler would ask."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from local_cluster import eventually, kept_port

BINARY = shutil.which("prometheus")
EVERY_S = 0.1
THRESHOLD = 10  # items that one worker is meant for
QUERIES = Path(__file__).parents[2] / "deploy/helm/sie-cluster/files/queries.yaml"
CONFIG = {
    "global": {"scrape_interval": "100ms", "scrape_timeout": "100ms"},
    "scrape_configs": [{"job_name": "router", "file_sd_configs": [{"files": ["targets.json"]}]}],
}


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server. `targets` is the file that tells it whom to scrape."""

    url: str
    targets: Path

    def scrape(self, routers: Iterable[str]) -> None:
        """Scrape these routers from now on, and no others."""
        addresses = [url.removeprefix("http://") for url in routers]
        new = self.targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": addresses}]))
        new.rename(self.targets)

    async def ask(self, client: httpx.AsyncClient, name: str) -> float | None:
        """The number that a query of the chart gives for the group l4; None when it gives nothing."""
        return await self.number(client, queries()[name])

    async def number(self, client: httpx.AsyncClient, query: str) -> float | None:
        """What a query gives; None when it gives nothing."""
        answer = (await client.get(f"{self.url}/api/v1/query", params={"query": query})).json()
        assert answer["status"] == "success", answer
        results = answer["data"]["result"]
        assert len(results) < 2, f"{query} gives several numbers: {results}"
        return float(results[0]["value"][1]) if results else None

    async def scraped(self, router: str, within_s: float = 60.0) -> None:
        """Wait until this router was scraped."""
        query = f'up{{instance="{router.removeprefix("http://")}"}}'
        async with httpx.AsyncClient() as client, asyncio.timeout(within_s):
            while await self.number(client, query) != 1:  # noqa: ASYNC110 - it is another process that has to scrape
                await asyncio.sleep(EVERY_S / 2)

    async def until(self, expected: Mapping[str, float | None], within_s: float = 60.0) -> None:
        """Wait until these queries give these numbers."""
        found: dict[str, float | None] = {}
        async with httpx.AsyncClient() as client:
            try:
                async with asyncio.timeout(within_s):
                    while found != expected:
                        await asyncio.sleep(EVERY_S / 2)
                        found = {name: await self.ask(client, name) for name in expected}
            except TimeoutError:
                raise AssertionError(f"expected {expected}, at the end it was {found}") from None

    async def always(self, expected: Mapping[str, float], done: asyncio.Event, least: int) -> None:
        """Ask again and again until `done`, and until all of them came so often; every answer must be this.

        None may come instead, which changes nothing: a busy machine lets scrapes fail.
        """
        count = 0
        async with httpx.AsyncClient() as client:
            while count < least or not done.is_set():
                found = {name: await self.ask(client, name) for name in expected}
                answers = {name: value for name, value in found.items() if value is not None}
                assert answers == {name: expected[name] for name in answers}
                count += answers == expected
                await asyncio.sleep(EVERY_S / 2)


def queries() -> dict[str, str]:
    """Those of the chart, by name, for the group l4."""
    texts: dict[str, str] = yaml.safe_load(QUERIES.read_text())
    values = {"$profile": "l4", "$bundle": "default", "$threshold": str(THRESHOLD)}
    for variable, value in values.items():
        texts = {name: text.replace(variable, value) for name, text in texts.items()}
    return texts


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run one in a folder of its own."""
    with kept_port() as port:
        yield from _prometheus(folder, port)


def _prometheus(folder: Path, port: int) -> Iterator[Prometheus]:
    assert BINARY is not None
    (folder / "prometheus.yml").write_text(yaml.safe_dump(CONFIG))
    flags = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=error"]
    command = [BINARY, f"--config.file={folder / 'prometheus.yml'}", *flags]
    server = Prometheus(f"http://127.0.0.1:{port}", folder / "targets.json")
    server.scrape(())
    popen = subprocess.Popen(command, cwd=folder)
    try:
        eventually(lambda: httpx.get(f"{server.url}/-/ready").status_code == 200)
        yield server
    finally:
        popen.terminate()
        popen.wait(20)
