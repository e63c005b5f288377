"""Measure the worker against the hardware, against itself without HTTP, and against sentence-transformers, in one run.

Each round: every text in one call of the engine (offline), the same texts by sentence-transformers, and as single-text
HTTP requests at each concurrency; then each text alone, over HTTP and through the bare adapter. Between these parts the
rate of the model's matrix products alone is taken: it is the limit, and a round in which it changes does not count
(see `evenness.py`). Ratios are taken within a round. Tokens are what the model reads, special tokens included;
operations are counted from the model's shape.

    .venv/bin/python tools/bench/worker.py [--rounds 7] [--texts 240] [--concurrency 16,64]
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from children import LATENCY_TEXTS, Child
from corpus import MODEL, model_folder, shape_of
from evenness import Mark, even_rounds
from figures import Figures, table
from servers import free_port, native, own_worker, serving
from sie_protocol.arrays import Array


def measure(rounds: int, count: int, concurrencies: Sequence[int]) -> None:
    """Run the rounds and print the tables."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        cold_s = stack.enter_context(serving(own_worker(port), port, *native(MODEL))).seconds
        print(f"from `sie-server serve` to the first vector: {cold_s:.2f} s")

        def child(*arguments: str) -> Child:
            made = Child(*arguments)
            stack.callback(made.close)
            return made

        client = child("load", str(count), str(port), "native")
        oracle, engine, limit = (child(role, str(count)) for role in ("oracle", "engine", "limit"))
        sides = Sides(client, oracle, engine, limit, count, concurrencies)
        print(f"{count} texts, {sides.tokens} tokens, {sides.flops / 1e6:.1f} MFLOP each, {os.cpu_count()} cores")
        done = even_rounds(rounds, sides.most, sides.compare)
    kept = [each.found for each in done.kept]
    print(f"\nmedian of {len(kept)} rounds (range)\n{table([each.rates for each in kept])}")
    print(f"\n{table([each.ratios for each in kept])}\n\n{done.verdict()}")
    print(f"largest difference of any vector component: {sides.worst:.1e}")


class Sides:
    """The processes that are compared."""

    def __init__(
        self, client: Child, oracle: Child, engine: Child, limit: Child, count: int, concurrencies: Sequence[int]
    ) -> None:
        self._client, self._oracle, self._engine, self._limit = client, oracle, engine, limit
        self._count, self._concurrencies = count, concurrencies
        lengths: list[int] = client.ask(f"16 {count}")["tokens"]
        self.tokens = sum(lengths)
        self.flops = sum(map(shape_of(model_folder()).flops, lengths)) / self.tokens
        self.worst = 0.0

    def most(self) -> float:
        """Tokens a second if there were nothing but the model's matrix products, as this machine does them now."""
        flops_per_s: float = self._limit.ask()["flops_per_s"]
        return flops_per_s / self.flops

    def compare(self, mark: Mark) -> Figures:
        """One round."""
        before = mark()
        offline = self.tokens / self._engine.ask("all")["seconds"]
        most = (before + mark()) / 2
        reference = self._oracle.ask()
        theirs = self.tokens / reference["seconds"]
        mark()
        found = Figures(
            {"limit of the matrix products, tokens/s": most, "engine offline, tokens/s": offline},
            {"engine offline / limit": offline / most},
        )
        found.rates["sentence-transformers offline, tokens/s"] = theirs
        for each in self._concurrencies:
            reply = self._client.ask(f"{each} {self._count}")
            online = self.tokens / reply["seconds"]
            mark()
            found.rates[f"worker, {each} requests at a time, tokens/s"] = online
            found.ratios[f"{each} at a time / engine offline"] = online / offline
            found.ratios[f"{each} at a time / sentence-transformers"] = online / theirs
            self.worst = max(self.worst, float(np.abs(_vectors(reply) - _vectors(reference)).max()))
        alone = self._client.ask(f"1 {min(LATENCY_TEXTS, self._count)}")["p50_ms"]
        bare = self._engine.ask("one")["p50_ms"]
        mark()
        found.rates["one request at a time, p50 ms"] = alone
        found.rates["bare forward of one text, p50 ms"] = bare
        found.ratios["one request at a time / bare forward"] = alone / bare
        return found


def _vectors(reply: dict[str, Any]) -> Array:
    return np.asarray(reply["vectors"], dtype=np.float32)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=240)
    parser.add_argument("--concurrency", default="16,64")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worker ends with us
    measure(asked.rounds, asked.texts, [int(each) for each in asked.concurrency.split(",")])


if __name__ == "__main__":
    main()
