"""Measuring processes: each answers one line on standard input with one JSON line on standard output.

Every side has a process of its own, so that no side's threads, caches or garbage are another's.

    python children.py oracle|engine|limit TEXTS
    python children.py load TEXTS PORT native|openai [MODEL]
"""

import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import IO, Any, Final

import msgspec
import numpy as np

from corpus import MODEL, model_folder, shape_of, texts_of
from http_load import load, post
from sie_protocol.headers import JSON, MSGPACK, operation_path

LIMIT_ROWS: Final = 512  # rows of a matrix product in the worker's batches
LIMIT_S: Final = 0.25
LATENCY_TEXTS: Final = 120  # asked for one at a time


class Child:
    """One of the processes, seen from the one that drives the rounds."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, __file__, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str = "go") -> dict[str, Any]:
        """Have it do one pass."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - opened above
        assert stdout is not None  # noqa: S101 - opened above
        stdin.write(line + "\n")
        stdin.flush()
        return dict(json.loads(_line(stdout)))

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def _line(stream: IO[str]) -> str:
    line = stream.readline()
    if not line:
        raise RuntimeError("a measuring process died; its error is above")
    return line


def tell(value: dict[str, Any]) -> None:
    """Answer one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def oracle(texts: list[str]) -> None:
    """Encode everything with sentence-transformers; batches of 32, sorted by length, as it does by itself."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - only this process needs it

    model = SentenceTransformer(str(model_folder()), device="cpu")
    model.encode(texts[:64], batch_size=32)
    for _ in sys.stdin:
        started = time.perf_counter()
        vectors = model.encode(texts, batch_size=32)
        tell({"seconds": time.perf_counter() - started, "vectors": np.asarray(vectors).tolist()})


def engine(texts: list[str]) -> None:
    """`all`: every text in one call of the worker's engine. `one`: each text alone, through the bare adapter."""
    from sie_server.host_memory import configure_malloc  # noqa: PLC0415 - only this process needs them
    from sie_server.settings import use_huge_pages  # noqa: PLC0415

    use_huge_pages()  # the next two as the command does
    configure_malloc()
    asyncio.run(_engine(texts))


async def _engine(texts: list[str]) -> None:
    import os  # noqa: PLC0415 - only this process needs them

    from sie_protocol.errors import Problem  # noqa: PLC0415
    from sie_protocol.items import EncodeParams, Item  # noqa: PLC0415
    from sie_server.app import worker  # noqa: PLC0415
    from sie_server.engine.encoding import encode  # noqa: PLC0415
    from sie_server.settings import read  # noqa: PLC0415

    items = [Item(text=text) for text in texts]
    settings = read({**os.environ, "SIE_MODEL_FILTER": MODEL})
    async with worker(settings) as running:

        async def everything() -> float:
            started = time.perf_counter()
            await encode(running.engine, MODEL, items, EncodeParams())
            return time.perf_counter() - started

        async def loaded() -> None:
            while True:
                try:
                    await encode(running.engine, MODEL, items[:1], EncodeParams())
                except Problem as problem:
                    await asyncio.sleep(min(0.1, problem.retry_after_s or 0))
                else:
                    return

        await loaded()
        await everything()
        bare = _bare(settings.cores)
        await _answers(
            {
                "all": lambda: _seconds(everything()),
                "one": lambda: asyncio.to_thread(
                    lambda: {"p50_ms": statistics.median(map(bare, texts[:LATENCY_TEXTS])) * 1000}
                ),
            }
        )


async def _seconds(work: Awaitable[float]) -> dict[str, Any]:
    return {"seconds": await work}


def _bare(cores: int) -> Callable[[str], float]:
    """Seconds that tokenising and one forward pass of one text take, with nothing around them."""
    from sie_server.adapters.dense import DenseAdapter  # noqa: PLC0415 - only this process needs it
    from sie_server.catalog_files import read_catalog  # noqa: PLC0415
    from sie_server.engine.slots import spec_of  # noqa: PLC0415
    from sie_server.settings import Settings  # noqa: PLC0415

    model = read_catalog(Settings().models_dir, Settings().bundles_dir).models[MODEL.lower()]
    adapter = DenseAdapter(spec_of(model))
    adapter.load("cpu")

    def once(text: str) -> float:
        started = time.perf_counter()
        adapter.run(adapter.prepare([text]), cores)
        return time.perf_counter() - started

    return once


async def _answers(passes: dict[str, Callable[[], Awaitable[dict[str, Any]]]]) -> None:
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        tell(await passes[line]())


def limit(_texts: list[str]) -> None:
    """The best rate of the model's matrix products alone, one thread on each core, in operations a second."""
    import torch  # noqa: PLC0415 - only this process needs it

    from sie_server.settings import usable_cores  # noqa: PLC0415

    shape, cores = shape_of(model_folder()), usable_cores()
    torch.set_num_threads(1)
    for _ in sys.stdin:
        counts = [0] * cores
        start = threading.Barrier(cores + 1)

        def work(core: int, counts: list[int] = counts, start: threading.Barrier = start) -> None:
            products = [
                (torch.rand(LIMIT_ROWS, rows), torch.rand(rows, columns), torch.empty(LIMIT_ROWS, columns))
                for rows, columns in shape.products
            ]
            start.wait()
            ends = time.perf_counter() + LIMIT_S
            while time.perf_counter() < ends:
                for left, right, out in products:
                    torch.mm(left, right, out=out)
                counts[core] += 1

        threads = [threading.Thread(target=work, args=(core,)) for core in range(cores)]
        for thread in threads:
            thread.start()
        start.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        flops = 2 * LIMIT_ROWS * sum(rows * columns for rows, columns in shape.products)
        tell({"flops_per_s": sum(counts) * flops / (time.perf_counter() - started)})


def load_of(texts: list[str], port: int, shape: str, model: str = MODEL) -> None:
    """For each `CONCURRENCY COUNT`: send so many texts, one a request, so many at a time."""
    import uvloop  # noqa: PLC0415 - only this process needs it

    requests = [_request(text, shape, model) for text in texts]
    for line in sys.stdin:
        concurrency, count = map(int, line.split())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            passed = runner.run(load(port, requests[:count], concurrency))
        found = [_answer(passed.bodies[at], shape) for at in range(count)]
        tell(
            {
                "seconds": passed.total_s,
                "p50_ms": statistics.median(passed.seconds.values()) * 1000,
                "tokens": [tokens for tokens, _ in found],
                "vectors": [vector for _, vector in found],
            }
        )


def _request(text: str, shape: str, model: str) -> bytes:
    if shape == "openai":
        return post("/embeddings", JSON, msgspec.json.encode({"model": model, "input": [text]}))
    return post(operation_path("encode", model), MSGPACK, msgspec.msgpack.encode({"items": [{"text": text}]}))


def _answer(body: bytes, shape: str) -> tuple[int, list[float]]:
    from sie_protocol.arrays import decode_reply  # noqa: PLC0415 - only this process needs it

    if shape == "openai":
        return 0, msgspec.json.decode(body)["data"][0]["embedding"]
    answer = decode_reply(body)
    return answer.get("usage", {}).get("input_tokens", 0), answer["items"][0]["dense"]["values"].tolist()


def main() -> None:
    """Be one of the processes."""
    role, count, *rest = sys.argv[1:]
    texts = texts_of(int(count))
    if role == "load":
        load_of(texts, int(rest[0]), *rest[1:])
    else:
        {"oracle": oracle, "engine": engine, "limit": limit}[role](texts)


if __name__ == "__main__":
    main()
