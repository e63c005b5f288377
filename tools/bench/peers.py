"""Measure the worker beside other servers of the same model, with the same weights and the same requests, in one run.

Installs each peer from the package index into an environment of its own (under the user's cache folder, once), starts
it on the weights of the development environment, and sends every server the same single-text requests. Rounds are
interleaved; ratios are taken within a round.

    .venv/bin/python tools/bench/peers.py [--rounds 5] [--texts 240] [--concurrency 16,64] [--only NAME]
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from children import Child
from corpus import MODEL, model_folder
from environments import installed
from figures import Figures
from servers import free_port, native, own_worker, serving

SMALLEST_COSINE = 0.999
EMBEDDINGS = "/embeddings"


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
    Peer("sie-server 0.10.1", "python3.12", ("sie-server==0.10.1",), published_sie, "native"),
    Peer("infinity-emb 0.0.78", "python3.11", ("infinity-emb[server,torch]==0.0.78",), infinity, "openai"),
)


def measure(peers: Sequence[Peer], rounds: int, count: int, concurrencies: Sequence[int], scratch: Path) -> None:
    """Run the rounds and print the tables."""
    rates, ratios, closest = Figures(), Figures(), 1.0
    texts = str(count)
    with contextlib.ExitStack() as stack:

        def start(name: str, command: list[str], port: int, shape: str) -> Child:
            first = native(MODEL) if shape == "native" else (EMBEDDINGS, {"model": MODEL, "input": ["hello"]})
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            seconds = stack.enter_context(serving(command, port, *first, env=environment)).seconds
            print(f"{name}: {seconds:.1f} s from its start to the first vector", flush=True)
            child = Child("load", texts, str(port), shape)
            stack.callback(child.close)
            return child

        port = free_port()
        own = start("this worker", own_worker(port), port, "native")
        others: dict[str, Child] = {}
        for peer in peers:
            port = free_port()
            others[peer.name] = start(
                peer.name,
                peer.command(installed(peer.name, peer.python, peer.requirements), scratch / peer.name, port),
                port,
                peer.shape,
            )
        lengths = own.ask(f"16 {count}")["tokens"]
        print(f"{count} texts, {sum(lengths)} tokens, {os.cpu_count()} cores")
        for number in range(rounds):
            for each in concurrencies:
                reply = own.ask(f"{each} {count}")
                ours, reference = sum(lengths) / reply["seconds"], np.asarray(reply["vectors"])
                rates.add(f"this worker, {each} at a time, tokens/s", ours)
                for name, child in others.items():
                    reply = child.ask(f"{each} {count}")
                    theirs = sum(lengths) / reply["seconds"]
                    rates.add(f"{name}, {each} at a time, tokens/s", theirs)
                    ratios.add(f"this worker / {name}, {each} at a time", ours / theirs)
                    closest = min(closest, float((np.asarray(reply["vectors"]) * reference).sum(1).min()))
            print(f"round {number + 1}:  {ratios.line()}", flush=True)
    print(f"\nmedian of {rounds} rounds (range)\n{rates.table()}\n\n{ratios.table()}")
    print(f"\nsmallest cosine between this worker's vector and a peer's: {closest:.6f}")
    if closest < SMALLEST_COSINE:
        raise SystemExit("the vectors differ: the servers did not do the same work")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=240)
    parser.add_argument("--concurrency", default="16,64")
    parser.add_argument("--only", default="", help="measure the peers whose name holds this")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    peers = [peer for peer in PEERS if asked.only in peer.name]
    with tempfile.TemporaryDirectory() as scratch:
        measure(peers, asked.rounds, asked.texts, [int(each) for each in asked.concurrency.split(",")], Path(scratch))


if __name__ == "__main__":
    main()
