"""Measure the worker beside other servers of the same model, with the same weights and the same requests, in one run.

Installs each peer from the package index into an environment of its own (under the user's cache folder, once), starts
it on the weights of the development environment, and sends every server the same single-text requests. Rounds are
interleaved, ratios are taken within a round, and a round in which the host's speed changed does not count (see
`evenness.py`); what a server spends of the CPU for a token depends less on the host. A peer that needs another Python
looks for one on PATH and where the usual managers keep theirs.

    .venv/bin/python tools/bench/peers.py [--rounds 5] [--texts 120] [--concurrency 16,64] [--only NAME]
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from children import Child
from corpus import MODEL, model_folder
from environments import installed
from evenness import Mark, even_rounds
from figures import Figures, table
from servers import free_port, native, own_worker, serving
from wrk import cpu_seconds

SMALLEST_COSINE = 0.999
EMBEDDINGS = "/embeddings"
OWN = "this worker"


@dataclass(frozen=True, slots=True)
class Peer:
    """One server: what to install for which Python, how to start it, and which shape its requests have."""

    name: str
    python: str
    requirements: tuple[str, ...]
    command: Callable[[Path, Path, int], list[str]]
    shape: str


def infinity(bin_dir: Path, _: Path, port: int) -> list[str]:
    """Infinity, on the torch engine; its other engines need a model export."""
    options = ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--served-model-name", MODEL]
    options += ["--no-bettertransformer", "--no-model-warmup", "--host", "127.0.0.1", "--port", str(port)]
    return [str(bin_dir / "infinity_emb"), "v2", "--model-id", str(model_folder()), *options]


def published_sie(bin_dir: Path, scratch: Path, port: int) -> list[str]:
    """The published worker, with its own catalogue entry pointed at the same weights."""
    entry = f"""\
sie_id: {MODEL}
weights_path: {model_folder()}
inputs: {{text: true}}
tasks: {{encode: {{dense: {{dim: 384}}}}}}
max_sequence_length: 256
profiles:
  default:
    max_batch_tokens: 16384
    adapter_path: sie_server.adapters.sentence_transformer:SentenceTransformerDenseAdapter
    adapter_options:
      loadtime: {{trust_remote_code: false}}
      runtime: {{pooling: mean, normalize: true}}
"""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "model.yaml").write_text(entry)
    options = ["--models-dir", str(scratch), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    return [str(bin_dir / "sie-server"), "serve", *options]


PEERS = (
    Peer("sie-server 0.10.1", "3.12", ("sie-server==0.10.1",), published_sie, "native"),
    Peer("infinity-emb 0.0.78", "3.11", ("infinity-emb[server,torch]==0.0.78",), infinity, "openai"),
)


def measure(peers: Sequence[Peer], rounds: int, count: int, concurrencies: Sequence[int], scratch: Path) -> None:
    """Run the rounds and print the tables."""
    # Before anything runs: an installation takes minutes.
    programs = {peer.name: installed(peer.name, peer.python, peer.requirements) for peer in peers}
    with contextlib.ExitStack() as stack:

        def child(*arguments: str) -> Child:
            made = Child(*arguments)
            stack.callback(made.close)
            return made

        def start(name: str, command: list[str], port: int, shape: str) -> Server:
            first = native(MODEL) if shape == "native" else (EMBEDDINGS, {"model": MODEL, "input": ["hello"]})
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            started = stack.enter_context(serving(command, port, *first, env=environment))
            print(f"{name}: {started.seconds:.1f} s from its start to the first vector", flush=True)
            return Server(child("load", str(count), str(port), shape), started.pid)

        limit, port = child("limit", str(count)), free_port()
        own = start(OWN, own_worker(port), port, "native")
        others: dict[str, Server] = {}
        for peer in peers:
            port = free_port()
            command = peer.command(programs[peer.name], scratch / peer.name, port)
            others[peer.name] = start(peer.name, command, port, peer.shape)
        servers = Servers(own, others, count, concurrencies)
        print(f"{count} texts, {servers.tokens} tokens, {os.cpu_count()} cores")
        done = even_rounds(rounds, lambda: float(limit.ask()["flops_per_s"]), servers.compare)
    kept = [each.found for each in done.kept]
    print(f"\nmedian of {len(kept)} rounds (range)\n{table([each.rates for each in kept])}")
    print(f"\n{table([each.ratios for each in kept])}\n\n{done.verdict()}")
    print(f"smallest cosine between this worker's vector and a peer's: {servers.closest:.6f}")
    if servers.closest < SMALLEST_COSINE:
        raise SystemExit("the vectors differ: the servers did not do the same work")


@dataclass(frozen=True, slots=True)
class Server:
    """A server's process, and the one that asks it."""

    load: Child
    pid: int

    def passed(self, concurrency: int, count: int) -> dict[str, Any]:
        """One pass over the texts; also the CPU seconds that the server spent on it."""
        before = cpu_seconds(self.pid)
        return self.load.ask(f"{concurrency} {count}") | {"cpu_s": cpu_seconds(self.pid) - before}


class Servers:
    """This worker and others."""

    def __init__(self, own: Server, others: Mapping[str, Server], count: int, concurrencies: Sequence[int]) -> None:
        self._own, self._others = own, others
        self._count, self._concurrencies = count, concurrencies
        self.tokens = sum(own.passed(16, count)["tokens"])
        self.closest = 1.0
        for server in others.values():
            server.passed(16, count)  # what is slow only once is over before the first round

    def compare(self, mark: Mark) -> Figures:
        """One round."""
        found = Figures()
        mark()
        for each in self._concurrencies:
            ours = self._own.passed(each, self._count)
            mark()
            self._rate(found, f"{OWN}, {each} at a time", ours)
            for name, server in self._others.items():
                theirs = server.passed(each, self._count)
                mark()
                self._rate(found, f"{name}, {each} at a time", theirs)
                beside = f"{OWN} / {name}, {each} at a time"
                found.ratios[beside] = theirs["seconds"] / ours["seconds"]
                found.ratios[f"{beside}, by CPU"] = theirs["cpu_s"] / ours["cpu_s"]
                cosines = (np.asarray(theirs["vectors"]) * np.asarray(ours["vectors"])).sum(1)
                self.closest = min(self.closest, float(cosines.min()))
        return found

    def _rate(self, found: Figures, name: str, reply: Mapping[str, Any]) -> None:
        found.rates[f"{name}, tokens/s"] = self.tokens / reply["seconds"]
        found.rates[f"{name}, tokens/CPU second"] = self.tokens / reply["cpu_s"]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--concurrency", default="16,64")
    parser.add_argument("--only", default="", help="measure the peers whose name holds this")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    peers = [peer for peer in PEERS if asked.only in peer.name]
    with tempfile.TemporaryDirectory() as scratch:
        measure(peers, asked.rounds, asked.texts, [int(each) for each in asked.concurrency.split(",")], Path(scratch))


if __name__ == "__main__":
    main()
