"""Texts under a LoRA equal PEFT's, whatever else is in their batch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, TakesLoras, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from sie_server.adapters.gliner import GlinerAdapter
from sie_server.adapters.shared.lora import Lora, loras_of
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import Shape, write_checkpoint
from tiny_families import WIDTH, Family, alibaba, nomic, write_family
from tiny_loras import lora_oracle, write_lora

TEXTS = ["the cat sat on a mat", "x", "two dogs running far away, and a cat saw the two dogs.", "a cat, " * 30]
DECODER = {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8}
TINY: dict[str, tuple[Family, list[str] | str]] = {
    "xlm-roberta": (Family("xlm-roberta", {"num_hidden_layers": 2}), ["query", "key", "value", "dense"]),
    "xlm-roberta, first token": (Family("xlm-roberta", {"num_hidden_layers": 2}, "cls", seed=1), ["query", "value"]),
    "distilbert": (Family("distilbert", {"num_hidden_layers": 2}, "cls", seed=9), "all-linear"),
    "mpnet": (Family("mpnet", {"num_hidden_layers": 2}, seed=2), ["q", "v", "o"]),
    "gte": (Family("gte", {"num_hidden_layers": 2}, "cls", seed=20), ["q_proj", "k_proj", "up_proj", "down_proj"]),
    "nomic": (Family("nomic_bert", {"num_hidden_layers": 2}, seed=23), ["q_proj", "v_proj", "gate_proj", "o_proj"]),
    "modernbert": (Family("modernbert", {"num_hidden_layers": 3, "local_attention": 8}, seed=3), ["Wqkv", "Wo", "Wi"]),
    "qwen3": (Family("qwen3", DECODER, "last", seed=4), "all-linear"),
    "qwen3, first token": (Family("qwen3", DECODER, "cls", seed=5), ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "qwen2": (Family("qwen2", {"num_hidden_layers": 2, "num_key_value_heads": 2}, "last", seed=6), "all-linear"),
    "gemma3": (Family("gemma3_text", {**DECODER, "query_pre_attn_scalar": 24}, seed=7), "all-linear"),
    "mistral": (Family("mistral", DECODER, "last", seed=8), ["q_proj", "down_proj", "up_proj"]),
}


def adapter(folder: Path, **options: Any) -> DenseAdapter:
    loaded = DenseAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, options))
    loaded.load("cpu")
    return loaded


def encode(loaded: DenseAdapter, texts: Sequence[str], loras: Sequence[Lora | None]) -> Array:
    batch = [replace(each, lora=lora) for each, lora in zip(loaded.prepare(texts), loras, strict=True)]
    return np.asarray(loaded.run(batch, threads=1)["dense"])


@pytest.mark.parametrize("name", TINY)
def test_a_batch_mixes_the_model_and_two_loras_and_each_text_is_as_alone(tmp_path: Path, name: str) -> None:
    family, targets = TINY[name]
    folder = write_family(tmp_path / "model", family)
    files = [
        write_lora(folder, tmp_path / f"lora{at}", targets, at, r=1 + 3 * at, use_rslora=at > 0) for at in range(2)
    ]
    loaded = adapter(folder)
    kinds: list[Lora | None] = [None, *(loaded.read_lora(str(file)) for file in files)]
    expected = np.stack([lora_oracle(folder, file, TEXTS, family.pooling) for file in (None, *files)])
    assert np.abs(expected[0] - expected[1]).max() > 0.05, "the LoRA changes what the model says"
    asked = [(kind, at) for at in range(len(TEXTS)) for kind in (0, 1, 2, 1)]  # no two neighbours alike
    for order in (asked, sorted(asked), asked[::-1][:7]):
        found = encode(loaded, [TEXTS[at] for _, at in order], [kinds[kind] for kind, _ in order])
        np.testing.assert_allclose(found, [expected[kind, at] for kind, at in order], atol=1e-5)


BERT_TABLES = ["query", "value", "word_embeddings", "token_type_embeddings"]
WITH_TABLES: dict[str, tuple[Family, list[str]]] = {
    "xlm-roberta": (Family("xlm-roberta", {"num_hidden_layers": 2}, seed=10), BERT_TABLES),
    "xlm-roberta, first token": (Family("xlm-roberta", {"num_hidden_layers": 1}, "cls", seed=11), BERT_TABLES),
    "distilbert": (Family("distilbert", {"num_hidden_layers": 1}, seed=12), ["word_embeddings", "q_lin"]),
    "mpnet": (Family("mpnet", {"num_hidden_layers": 1}, seed=13), ["word_embeddings"]),
    "jina_embeddings_v3": (Family("jina_embeddings_v3", {"num_hidden_layers": 1}, seed=14), ["word_embeddings", "fc1"]),
}


@pytest.mark.parametrize("name", WITH_TABLES)
def test_embeddings_may_be_changed_too(tmp_path: Path, name: str) -> None:
    family, targets = WITH_TABLES[name]
    folder = write_family(tmp_path / "model", family)
    files = [write_lora(folder, tmp_path / f"lora{at}", targets, at, r=1 + at) for at in range(2)]
    loaded = adapter(folder)
    kinds: list[Lora | None] = [None, *(loaded.read_lora(str(file)) for file in files)]
    expected = np.stack([lora_oracle(folder, file, TEXTS, family.pooling) for file in (None, *files)])
    assert np.abs(expected[0] - expected[1]).max() > 0.05, "the LoRA changes what the model says"
    asked = [(kind, at) for at in range(len(TEXTS)) for kind in (0, 1, 2, 1)]
    for order in (asked, sorted(asked), asked[::-1][:7]):
        found = encode(loaded, [TEXTS[at] for _, at in order], [kinds[kind] for kind, _ in order])
        np.testing.assert_allclose(found, [expected[kind, at] for kind, at in order], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "table", "known"),
    [
        (Family("modernbert", {"num_hidden_layers": 2}), "tok_embeddings", "no embeddings"),
        (
            Family("xlm-roberta", {"num_hidden_layers": 1}),
            "position_embeddings",
            "token_type_embeddings, word_embeddings",
        ),
    ],
)
def test_embeddings_that_are_not_changed_here_are_refused_by_name(
    tmp_path: Path, family: Family, table: str, known: str
) -> None:
    folder = write_family(tmp_path / "model", family)
    file = write_lora(folder, tmp_path / "lora", [table])
    with pytest.raises(LoadError, match=rf"{table}'; of this model those for {known} are") as refused:
        adapter(folder).read_lora(str(file))
    assert refused.value.error_class is ErrorClass.DEPENDENCY


def test_a_table_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", Family("xlm-roberta", {"num_hidden_layers": 1}))
    file = write_lora(folder, tmp_path / "lora", ["word_embeddings"])
    weights = file / "adapter_model.safetensors"
    name = "base_model.model.embeddings.word_embeddings.lora_embedding_A"
    save_file({**load_file(weights), name: torch.ones(4, 7)}, weights)
    with pytest.raises(LoadError, match="made for another model"):
        adapter(folder).read_lora(str(file))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bert_equals_peft_alone_and_in_company(tmp_path: Path, pooling: str) -> None:
    folder = write_checkpoint(tmp_path / "model", Shape(pooling=pooling, max_seq_length=300))
    file = write_lora(folder, tmp_path / "lora", ["query", "key", "value", "dense"], lora_alpha=3)
    loaded = adapter(folder)
    lora = loaded.read_lora(str(file))
    under, plain = (lora_oracle(folder, each, TEXTS, pooling, 300) for each in (file, None))
    np.testing.assert_allclose(encode(loaded, TEXTS, [lora] * 4), under, atol=1e-5)
    np.testing.assert_allclose(encode(loaded, TEXTS, [None] * 4), plain, atol=1e-5)
    mixed = encode(loaded, [*TEXTS, *TEXTS], [lora, None] * 4)
    np.testing.assert_allclose(mixed, [(under, plain)[at % 2][at % 4] for at in range(8)], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "fused"),
    [
        (
            Family("gte", {"num_hidden_layers": 2}, seed=21, prefix="new.", published_config=alibaba),
            "attention.qkv_proj",
        ),
        (Family("nomic_bert", {"num_hidden_layers": 2}, seed=24, published_config=nomic), "attn.Wqkv"),
    ],
    ids=["gte", "nomic"],
)
def test_one_matrix_of_queries_keys_and_values_is_that_of_three_layers(
    tmp_path: Path, family: Family, fused: str
) -> None:
    """A LoRA of a published layout that transformers does not run: the same term, cut in three with one A."""
    folder = write_family(tmp_path / "model", family)
    written = write_lora(folder, tmp_path / "three", ["q_proj", "k_proj", "v_proj"], r=2)
    tensors = load_file(written / "adapter_model.safetensors")
    layers = sorted({name.rsplit(".", 3)[0] for name in tensors})
    together, same = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for layer in layers:
        down = tensors[f"{layer}.q_proj.lora_A.weight"]
        ups = [tensors[f"{layer}.{part}_proj.lora_B.weight"] for part in "qkv"]
        for part, up in zip("qkv", ups, strict=True):
            same |= {f"{layer}.{part}_proj.lora_A.weight": down.clone(), f"{layer}.{part}_proj.lora_B.weight": up}
        own = layer.rpartition(".")[0] + f".{fused}"
        together |= {f"{own}.lora_A.weight": down, f"{own}.lora_B.weight": torch.cat(ups)}
    save_file(same, written / "adapter_model.safetensors")
    whole = tmp_path / "one"
    whole.mkdir()
    (whole / "adapter_config.json").write_bytes((written / "adapter_config.json").read_bytes())
    save_file(together, whole / "adapter_model.safetensors")
    loaded = adapter(folder)
    expected = lora_oracle(folder, written, TEXTS, family.pooling)
    for file in (written, whole):
        np.testing.assert_allclose(encode(loaded, TEXTS, [loaded.read_lora(str(file))] * 4), expected, atol=1e-5)


def test_a_batch_without_loras_is_told_of_none(tmp_path: Path) -> None:
    loaded = adapter(write_checkpoint(tmp_path / "model"))
    assert loras_of(loaded.prepare(TEXTS)) is None


def test_a_lora_takes_its_own_bytes_only_and_outlives_its_files(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    file = write_lora(folder, tmp_path / "lora", ["query", "output.dense"])
    loaded = adapter(folder)
    lora = loaded.read_lora(str(file))
    before = encode(loaded, TEXTS, [lora] * 4)
    stored = load_file(file / "adapter_model.safetensors")
    held = [tensor for terms in lora.terms.values() for term in terms for tensor in (term.down, term.up)]
    assert sum(each.nbytes for each in held) == sum(each.nbytes for each in stored.values())
    assert sum(each.untyped_storage().nbytes() for each in held) == sum(each.nbytes for each in held)
    with (file / "adapter_model.safetensors").open("r+b") as opened:
        opened.write(bytes(1000))
    np.testing.assert_array_equal(encode(loaded, TEXTS, [lora] * 4), before)


def change(**values: Any) -> Any:
    def apply(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return apply


def tensors(**values: torch.Tensor) -> Any:
    def apply(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        own = {name.replace("__", "."): tensor for name, tensor in values.items()}
        save_file({**load_file(file), **own}, file)

    return apply


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


QUERY = "base_model__model__encoder__layer__0__attention__self__query"


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        (change(peft_type="IA3"), ErrorClass.DEPENDENCY, "peft_type 'IA3'"),
        (change(bias="lora_only"), ErrorClass.DEPENDENCY, "bias 'lora_only'"),
        (change(use_dora=True), ErrorClass.DEPENDENCY, "use_dora"),
        (change(modules_to_save=["classifier"]), ErrorClass.DEPENDENCY, "modules_to_save"),
        (change(rank_pattern={"query": 2}), ErrorClass.DEPENDENCY, "rank_pattern"),
        (change(something_new=3), ErrorClass.DEPENDENCY, "something_new"),
        (change(init_lora_weights="pissa"), ErrorClass.DEPENDENCY, "changes the model's own weights"),
        (change(r=0), ErrorClass.UNKNOWN, "r 0 and lora_alpha"),
        (change(r=5), ErrorClass.UNKNOWN, "its rank is 5"),
        (tensors(**{f"{QUERY}__lora_B__bias": torch.zeros(32)}), ErrorClass.DEPENDENCY, "lora_B.bias"),
        (tensors(**{f"{QUERY}__lora_magnitude_vector": torch.ones(32)}), ErrorClass.DEPENDENCY, "magnitude"),
        (tensors(**{f"{QUERY}__lora_A__weight": torch.ones(4, 31)}), ErrorClass.UNKNOWN, "made for another model"),
        (tensors(**{f"{QUERY}__lora_A__weight": torch.ones(4)}), ErrorClass.UNKNOWN, "its rank is 4"),
        (
            tensors(pooler__dense__lora_A__weight=torch.ones(4, 32), pooler__dense__lora_B__weight=torch.ones(32, 4)),
            ErrorClass.DEPENDENCY,
            "'pooler.dense'; of this model those for dense, key, query, value",
        ),
        (without("adapter_config.json"), ErrorClass.NOT_FOUND, "adapter_config.json"),
        (without("adapter_model.safetensors"), ErrorClass.NOT_FOUND, "adapter_model.safetensors"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    tmp_path: Path, damage: Any, error_class: ErrorClass, named: str
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    file = write_lora(folder, tmp_path / "lora", ["query", "value"])
    damage(file)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder).read_lora(str(file))
    assert refused.value.error_class is error_class


def test_architectures_that_are_not_run_with_loras_say_so(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", Family("deberta-v2", {"num_hidden_layers": 2}))
    with pytest.raises(LoadError, match="not run with LoRAs"):
        adapter(folder).read_lora(str(tmp_path))
    assert issubclass(DenseAdapter, TakesLoras)
    assert not issubclass(GlinerAdapter, TakesLoras)
