"""Measure the worker's encoder on an accelerator: parity with float32 on the CPU, tokens/s, and the share of its limit.

Two models with random weights, one of all-MiniLM-L6-v2's size and one of BGE-M3's, read the same mixed passages in
batches of the worker's budget. The limit is the rate of large matrix products in the same precision, measured in the
same run; operations are counted from the model's shape.

    .venv/bin/python tools/bench/accelerator.py [--device cuda] [--precision bfloat16] [--texts 4096] [--rounds 5]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from corpus import Shape, texts_of
from sie_protocol.arrays import Array
from sie_server.adapters.base import ModelSpec, Prepared, WeightsSource
from sie_server.adapters.dense import DenseAdapter

BATCH_TOKENS: Final = 16384
POSITIONS: Final = 512
LIMIT_SIDE: Final = 4096
PARITY_TEXTS: Final = 64
WORDS: Final = 2000
SIZES: Final = {"MiniLM": (Shape(6, 384, 1536), 12), "BGE-M3": (Shape(24, 1024, 4096), 16)}


def write_model(folder: Path, shape: Shape, heads: int, texts: Sequence[str]) -> None:
    """A BERT with random weights of the usual scale, and a tokenizer of the texts' own words."""
    words = list(dict.fromkeys(word for text in texts for word in text.split()))[:WORDS]
    vocabulary = {word: at for at, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "num_attention_heads": heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": POSITIONS,
        "vocab_size": len(vocabulary),
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(_tensors(shape, len(vocabulary))), folder / "model.safetensors")


def _tensors(shape: Shape, vocabulary: int) -> Iterator[tuple[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", torch.randn(columns, rows, generator=rng) * rows**-0.5
        yield f"{name}.bias", torch.randn(columns, generator=rng) * 0.02

    def norm(name: str) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", torch.ones(shape.width)
        yield f"{name}.bias", torch.zeros(shape.width)

    for name, rows in (("word", vocabulary), ("position", POSITIONS), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", torch.randn(rows, shape.width, generator=rng) * 0.02
    yield from norm("embeddings.LayerNorm")
    for at in range(shape.layers):
        layer = f"encoder.layer.{at}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", shape.width, shape.width)
        yield from linear(f"{layer}.attention.output.dense", shape.width, shape.width)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", shape.width, shape.inner)
        yield from linear(f"{layer}.output.dense", shape.inner, shape.width)
        yield from norm(f"{layer}.output.LayerNorm")


def loaded(folder: Path, width: int, device: str, precision: str) -> DenseAdapter:
    """The adapter that the worker would use."""
    options = {"pooling": "mean", "normalize": True}
    spec = ModelSpec("bench", WeightsSource(path=str(folder)), {"dense": width}, options, POSITIONS, precision)
    adapter = DenseAdapter(spec)
    adapter.load(device)
    return adapter


def batches(prepared: Sequence[Prepared]) -> list[list[Prepared]]:
    """In order of length, as the queue of a device that pads prefers them; each within the budget."""
    found: list[list[Prepared]] = [[]]
    tokens = 0
    for each in sorted(prepared, key=lambda one: one.tokens):
        if tokens + each.tokens > BATCH_TOKENS and found[-1]:
            found.append([])
            tokens = 0
        found[-1].append(each)
        tokens += each.tokens
    return found


def vectors(adapter: DenseAdapter, texts: Sequence[str]) -> Array:
    """One vector a text."""
    return np.asarray(adapter.run(adapter.prepare(texts), torch.get_num_threads())["dense"])


def seconds(work: Callable[[], Any], device: str) -> float:
    """How long it takes until the device has really done it."""
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def limit(device: str, precision: str, side: int) -> float:
    """The best rate of one large matrix product, in operations a second."""
    dtype = getattr(torch, precision)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(seconds(lambda: torch.mm(left, right, out=out), device) for _ in range(10))


def measure(name: str, device: str, precision: str, texts: Sequence[str], rounds: int) -> None:
    """Print the lines of one model."""
    shape, heads = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape, heads, texts)
        reference = vectors(loaded(Path(folder), shape.width, "cpu", "float32"), texts[:PARITY_TEXTS])
        adapter = loaded(Path(folder), shape.width, device, precision)
    cosine = float((vectors(adapter, texts[:PARITY_TEXTS]) * reference).sum(1).min())
    prepared = adapter.prepare(texts)
    work = batches(prepared)
    tokens, flops = sum(each.tokens for each in prepared), sum(shape.flops(each.tokens) for each in prepared)

    def everything() -> None:
        for batch in work:
            adapter.run(batch, torch.get_num_threads())

    everything()
    times = [seconds(everything, device) for _ in range(rounds)]
    most = limit(device, "float32" if device == "cpu" else precision, LIMIT_SIDE if device != "cpu" else 1024)
    rate, done = tokens / statistics.median(times), flops / statistics.median(times)
    print(
        f"{name:<8}{tokens:>9} tokens{rate:>14,.0f} tokens/s   "
        f"({tokens / max(times):,.0f} to {tokens / min(times):,.0f})"
        f"{done / 1e12:>9.2f} TFLOP/s of {most / 1e12:.2f}, {done / most:.0%}"
        f"   smallest cosine to float32 {cosine:.5f}",
        flush=True,
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--texts", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default=",".join(SIZES))
    asked = parser.parse_args()
    shown = torch.cuda.get_device_name() if asked.device == "cuda" else asked.device
    print(f"{shown}, {asked.precision}, torch {torch.__version__}")
    for name in asked.models.split(","):
        measure(name, asked.device, asked.precision, texts_of(asked.texts), asked.rounds)


if __name__ == "__main__":
    main()
