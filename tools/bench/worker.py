"""Measure the worker against the hardware, against itself without HTTP, and against sentence-transformers, in one run.

Each round: the rate of the model's matrix products alone (the limit), every text in one call of the engine (offline),
the same texts by sentence-transformers, and as single-text HTTP requests at each concurrency; then each text alone,
over HTTP and through the bare adapter. Ratios are taken within a round, so that a noisy machine is noisy for all.
Tokens are what the model reads, special tokens included; operations are counted from the model's shape.

    .venv/bin/python tools/bench/worker.py [--rounds 5] [--texts 480] [--concurrency 16,64]
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from children import Child
from corpus import MODEL, model_folder, shape_of
from figures import Figures
from servers import free_port, native, own_worker, serving
from sie_protocol.arrays import Array

LATENCY_TEXTS = 120


def measure(rounds: int, count: int, concurrencies: Sequence[int]) -> None:
    """Run the rounds and print the tables."""
    port, shape = free_port(), shape_of(model_folder())
    rates, ratios, worst = Figures(), Figures(), 0.0
    with contextlib.ExitStack() as stack:
        cold_s = stack.enter_context(serving(own_worker(port), port, *native(MODEL))).seconds
        print(f"from `sie-server serve` to the first vector: {cold_s:.2f} s")
        client, oracle, engine, limit = (
            Child("load", str(count), str(port), "native"),
            *(Child(role, str(count)) for role in ("oracle", "engine", "limit")),
        )
        for child in (client, oracle, engine, limit):
            stack.callback(child.close)
        lengths = client.ask(f"16 {count}")["tokens"]
        tokens, flops = sum(lengths), sum(map(shape.flops, lengths))
        print(f"{count} texts, {tokens} tokens, {flops / tokens / 1e6:.1f} MFLOP each, {os.cpu_count()} cores")
        for number in range(rounds):
            most = limit.ask()["flops_per_s"] / (flops / tokens)
            offline = tokens / engine.ask("all")["seconds"]
            reference = oracle.ask()
            theirs = tokens / reference["seconds"]
            rates.add("limit of the matrix products, tokens/s", most)
            rates.add("engine offline, tokens/s", offline)
            rates.add("sentence-transformers offline, tokens/s", theirs)
            ratios.add("engine offline / limit", offline / most)
            for each in concurrencies:
                reply = client.ask(f"{each} {count}")
                online = tokens / reply["seconds"]
                rates.add(f"worker, {each} requests at a time, tokens/s", online)
                ratios.add(f"{each} at a time / engine offline", online / offline)
                ratios.add(f"{each} at a time / sentence-transformers", online / theirs)
                worst = max(worst, float(np.abs(_vectors(reply) - _vectors(reference)).max()))
            alone, bare = client.ask(f"1 {LATENCY_TEXTS}")["p50_ms"], engine.ask("one")["p50_ms"]
            rates.add("one request at a time, p50 ms", alone)
            rates.add("bare forward of one text, p50 ms", bare)
            ratios.add("one request at a time / bare forward", alone / bare)
            print(f"round {number + 1}:  {ratios.line()}", flush=True)
    print(f"\nmedian of {rounds} rounds (range)\n{rates.table()}\n\n{ratios.table()}")
    print(f"\nlargest difference of any vector component: {worst:.1e}")


def _vectors(reply: dict[str, Any]) -> Array:
    return np.asarray(reply["vectors"], dtype=np.float32)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=480)
    parser.add_argument("--concurrency", default="16,64")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worker ends with us
    measure(asked.rounds, asked.texts, [int(each) for each in asked.concurrency.split(",")])


if __name__ == "__main__":
    main()
