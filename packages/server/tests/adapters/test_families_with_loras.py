"""Every family that takes LoRAs answers with one as it does with weights that have it in them, in any company."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_protocol.arrays import Array
from sie_server.adapters.base import Adapter, Input, ModelSpec, Pair, SparseVector, TakesLoras, WeightsSource
from sie_server.adapters.registry import find
from tiny_bge_m3 import TOKEN_DIMS, write_bge_m3
from tiny_cross_encoder import write_reranker
from tiny_families import WIDTH, Family, write_family
from tiny_heads import VOCABULARY, write_colbert, write_mlm
from tiny_judge import write_judge
from tiny_loras import merged, write_lora

TEXTS = ["the cat sat on a mat", "two dogs", "the cat saw two dogs running far away"]
PAIRS = [Pair("the cat", "sat on a mat"), Pair("two dogs", "run"), Pair("a mat", "the cat saw two dogs running")]
GRIT = Family("mistral", {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8}, seed=3)
ATTENTION = ["query", "key", "value"]


@dataclass(frozen=True)
class Case:
    """A family: how its checkpoint is written, its catalogue entry, what it reads, what a LoRA of it changes."""

    adapter: str
    write: Callable[[Path], Path]
    dims: dict[str, int]
    options: dict[str, Any]
    inputs: Sequence[Input]
    targets: Sequence[str]


CASES = [
    Case(
        "bge_m3",
        lambda folder: write_bge_m3(folder, pickled=False),
        {"dense": WIDTH, "sparse": 36, "multivector": TOKEN_DIMS},
        {},
        TEXTS,
        [*ATTENTION, "dense"],
    ),
    Case("sparse", write_mlm, {"sparse": len(VOCABULARY)}, {}, TEXTS, [*ATTENTION, "output.dense"]),
    Case("colbert", write_colbert, {"multivector": 24}, {"query_length": 12}, TEXTS, ATTENTION),
    Case("cross_encoder", write_reranker, {}, {}, PAIRS, [*ATTENTION, "intermediate.dense"]),
    Case("instructed", lambda folder: write_family(folder, GRIT), {"dense": WIDTH}, {}, TEXTS, ["q_proj", "up_proj"]),
    Case(
        "judge",
        lambda folder: write_judge(folder, tied=True),
        {},
        {"prefix": "Is it so? ", "suffix": " Say: ", "yes": "y", "no": "n"},
        PAIRS,
        ["q_proj", "v_proj", "down_proj"],
    ),
]


def load(case: Case, folder: Path) -> Adapter:
    loaded = find(case.adapter)(ModelSpec("org/tiny", WeightsSource(path=str(folder)), case.dims, case.options))
    loaded.load("cpu")
    return loaded


def flat(output: Any) -> Array:
    """A row of any kind as one array."""
    if isinstance(output, SparseVector):
        table = np.zeros(512, np.float32)
        table[output.indices] = output.values
        return table
    return np.ravel(np.asarray(output))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.adapter)
def test_a_lora_is_as_good_as_weights_that_have_it_in_them(tmp_path: Path, case: Case) -> None:
    folder = case.write(tmp_path / "model")
    file = write_lora(folder, tmp_path / "lora", list(case.targets), seed=1)
    loaded, other = load(case, folder), load(case, merged(folder, file, tmp_path / "merged"))
    assert isinstance(loaded, TakesLoras)
    lora = loaded.read_lora(str(file))
    plain, expected = (each.run(each.prepare(case.inputs), threads=1) for each in (loaded, other))
    batch = [replace(each, lora=own) for each in loaded.prepare(case.inputs) for own in (lora, None)]
    found = loaded.run(batch, threads=1)
    assert set(found) == set(expected)
    for kind, rows in found.items():
        for at in range(len(case.inputs)):
            under, bare = flat(expected[kind][at]), flat(plain[kind][at])
            assert np.abs(under - bare).max() > 1e-3, "the LoRA changes what the model says"
            np.testing.assert_allclose(flat(rows[2 * at]), under, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(flat(rows[2 * at + 1]), bare, atol=1e-5, rtol=1e-5)
