"""Mixed traffic over real models, one of which is unloaded and loaded again under it, again and again.

Run with `python eviction_law.py --cycles 50`: it must end with 0 and prints what it counted. The law: no answer is lost
or wrong, every refusal is one that may be repeated, and after each unloading the process is as small as it was in the
first cycles, in which every thread meets its largest batch. Unloading starts under full traffic; to compare like with
like, clients hold their breath while memory is read.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from served_worker import Served, served
from sie_protocol.arrays import Array
from sie_server.host_memory import configure_malloc, resident_bytes, return_to_system
from sie_server.settings import Settings, use_huge_pages

MINILM, SPLADE = "sentence-transformers/all-MiniLM-L6-v2", "rasyosef/splade-tiny"
TEXTS = tuple(f"{'models come and go, ' * (1 + at % 9)}answer number {at} stays right" for at in range(24))
KINDS = ("dense", "score", "sparse")
MAY_REPEAT = {"MODEL_LOADING", "QUEUE_FULL"}
PAUSE_S = 0.02
TOLERANCE = 2e-5  # a batch of other texts may round otherwise
WARM_UP_CYCLES = 4
GROWTH = 1.05
ANSWERS_A_CYCLE = 4
BOUND_S = 120.0


@dataclass(slots=True)
class Report:
    """What happened. Memory in bytes: most after a warm-up cycle, after a later one, and with the model."""

    cycles: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    first_bytes: int = 0
    most_bytes: int = 0
    loaded_bytes: int = 0
    model_bytes: int = 0


class Traffic:
    """Requests under way; they can be held back before they are sent."""

    def __init__(self) -> None:
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._silent = asyncio.Event()
        self._under_way = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One request."""
        await self._may_go.wait()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._silent.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Silence: what is under way is answered first, and nothing else is sent."""
        self._may_go.clear()
        while self._under_way:
            self._silent.clear()
            await self._silent.wait()
        yield
        self._may_go.set()


class Client:
    """One kind of request: `ask` gives the numbers of one answer, to be compared with `known`."""

    def __init__(self, kind: str, report: Report, worker: Served, traffic: "Traffic") -> None:
        self._kind = kind
        self._traffic = traffic
        self._report = report
        self._http = worker.http
        self._known: list[Array] = []

    async def learn(self) -> None:
        """Ask for everything once, alone."""
        self._known = [await self._ask(at) for at in range(len(TEXTS))]

    async def run(self, start: int) -> None:
        """Ask for ever, and compare."""
        at = start
        while True:
            at = (at + 1) % len(TEXTS)
            found, known = await self._ask(at), self._known[at]
            assert found.shape == known.shape, f"{self._kind} {at}: {found.shape} instead of {known.shape}"
            assert np.abs(found - known).max() <= TOLERANCE, f"{self._kind} {at} is wrong"
            self._report.answers[self._kind] = self._report.answers.get(self._kind, 0) + 1

    async def _ask(self, at: int) -> Array:
        text, other = {"text": TEXTS[at]}, {"text": TEXTS[at - 1]}
        match self._kind:
            case "dense":
                body = await self._post(f"encode/{MINILM}", {"items": [text, other]})
                return np.array([item["dense"]["values"] for item in body["items"]])
            case "score":
                body = await self._post(f"score/{MINILM}", {"query": text, "items": [text, other]})
                return np.array([entry["score"] for entry in body["scores"]])
            case _:
                params = {"output_types": ["sparse"]}
                body = await self._post(f"encode/{SPLADE}", {"items": [text], "params": params})
                sparse = body["items"][0]["sparse"]
                full = np.zeros(sparse["dims"])
                full[sparse["indices"]] = sparse["values"]
                return full

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        async with asyncio.timeout(BOUND_S):
            while True:
                async with self._traffic.one():
                    reply = await self._http.post(f"/v1/{path}", json=body, headers={"accept": "application/json"})
                if reply.status_code == 200:
                    answer: dict[str, Any] = reply.json()
                    return answer
                code = reply.headers["x-sie-error-code"]
                assert code in MAY_REPEAT, reply.text
                assert int(reply.headers["retry-after"]) >= 1
                self._report.repeated[code] = self._report.repeated.get(code, 0) + 1
                await asyncio.sleep(PAUSE_S)


async def _answers(report: Report, more: int) -> None:
    """Wait until each kind has so many more answers."""
    wanted = {kind: report.answers.get(kind, 0) + more for kind in KINDS}
    async with asyncio.timeout(BOUND_S):
        while any(report.answers.get(kind, 0) < count for kind, count in wanted.items()):  # noqa: ASYNC110 - of many
            await asyncio.sleep(PAUSE_S)


async def law(cycles: int) -> Report:
    """Run so many cycles."""
    report, traffic = Report(), Traffic()
    settings = Settings(models=(MINILM, SPLADE), device="cpu", cores=2, name="w")
    async with served(settings) as worker, asyncio.TaskGroup() as group:
        clients = [Client(kind, report, worker, traffic) for kind in KINDS]
        for client in clients:
            await client.learn()
        tasks = [group.create_task(client.run(7 * start)) for client in clients for start in range(2)]
        for cycle in range(cycles):
            await _answers(report, ANSWERS_A_CYCLE)
            report.loaded_bytes = max(report.loaded_bytes, resident_bytes())
            report.model_bytes = max(each.memory_bytes for each in worker.worker.engine.statuses())
            unloading = asyncio.create_task(worker.worker.engine.unload(MINILM))
            await asyncio.sleep(0)  # it has begun: whatever is under way now is finished or told to come back
            async with traffic.held():
                await unloading
                assert worker.worker.engine.info_of(MINILM)["state"] == "available"
                return_to_system()
                left = resident_bytes()
            report.cycles = cycle + 1
            if cycle < WARM_UP_CYCLES:
                report.first_bytes = max(report.first_bytes, left)
                continue
            report.most_bytes = max(report.most_bytes, left)
            assert left <= GROWTH * report.first_bytes, f"cycle {cycle}: {left} bytes, {report.first_bytes} at first"
        await _answers(report, ANSWERS_A_CYCLE)
        for task in tasks:
            task.cancel()
    return report


def main() -> None:
    """Run the law and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=50)
    use_huge_pages()  # the next two as the command does
    configure_malloc()
    sys.stdout.write(json.dumps(asdict(asyncio.run(law(parser.parse_args().cycles)))) + "\n")


if __name__ == "__main__":
    main()
