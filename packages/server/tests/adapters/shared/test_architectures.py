"""Every architecture equals transformers, whatever else is in its batch."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, WeightsSource
from sie_server.adapters.dense import DenseAdapter
from sie_server.adapters.shared.architectures import read_architecture
from sie_server.adapters.shared.weights import read_json, read_tensors
from sie_server.core.lifecycle import ErrorClass
from tiny_families import (
    LETTERS,
    WIDTH,
    Family,
    alibaba,
    decoder_of_old,
    family_oracle,
    gemma_of_old,
    modernbert_of_old,
    nomic,
    nvidia,
    stretched,
    write_family,
)

TEXTS = [
    "the cat sat on a mat",
    "",
    "two dogs running far away, and a cat saw the two dogs.",
    "x",
    "the cat saw two dogs running, " * 5,  # longer than what plain attention takes
    "far away, " * 40,
    "and a cat. " * 60,  # longer than the model reads
]
KINDS = ["sliding_attention", "full_attention"]
TINY: dict[str, Family] = {
    "xlm-roberta": Family("xlm-roberta", {"num_hidden_layers": 3}),
    "xlm-roberta, first token": Family("xlm-roberta", {"num_hidden_layers": 2}, "cls", normalize=False, seed=1),
    "distilbert": Family("distilbert", {"num_hidden_layers": 2}, "cls", normalize=False, seed=9),
    "roberta, prefixed": Family("roberta", {"num_hidden_layers": 2}, seed=2, prefix="roberta."),
    "modernbert, windows within a text": Family("modernbert", {"num_hidden_layers": 6, "local_attention": 8}, seed=3),
    "modernbert, first token": Family(
        "modernbert", {"num_hidden_layers": 4, "norm_eps": 1e-3}, "cls", normalize=False, seed=4
    ),
    "modernbert, ends in a window": Family(
        "modernbert", {"num_hidden_layers": 5, "local_attention": 64}, "cls", seed=5
    ),
    "modernbert, as transformers 4 wrote it": Family(
        "modernbert",
        {
            "num_hidden_layers": 3,
            "local_attention": 16,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
        seed=6,
        prefix="model.",
        legacy_config=modernbert_of_old,
    ),
    "deberta": Family("deberta-v2", {"num_hidden_layers": 3}, seed=13),
    "deberta, first token, prefixed": Family(
        "deberta-v2", {"num_hidden_layers": 2, "layer_norm_eps": 1e-3}, "cls", seed=14, prefix="deberta."
    ),
    "deberta, every distance, projections of its own": Family(
        "deberta-v2",
        {"num_hidden_layers": 2, "position_buckets": -1, "max_relative_positions": 100, "share_att_key": False},
        seed=15,
    ),
    "deberta, one term": Family(
        "deberta-v2", {"num_hidden_layers": 2, "pos_att_type": ["p2c"], "norm_rel_ebd": "none"}, "last", seed=16
    ),
    "gemma": Family("gemma", {"num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16}, "last", seed=33),
    "gemma3": Family(
        "gemma3_text",
        {
            "num_hidden_layers": 7,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 64,
            "use_bidirectional_attention": True,
        },
        seed=26,
    ),
    "gemma3, as transformers 4 wrote it": Family(
        "gemma3_text",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "sliding_window": 300,
            "use_bidirectional_attention": True,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        seed=27,
        legacy_config=gemma_of_old,
    ),
    "gemma3, causal": Family(
        "gemma3_text",
        {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 30, "layer_types": KINDS},
        "last",
        seed=28,
    ),
    "gte": Family("gte", {"num_hidden_layers": 3}, "cls", seed=20),
    "gte, as Alibaba published it": Family(
        "gte",
        {
            "num_hidden_layers": 3,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-3,
            "rope_parameters": stretched(base=160.0, factor=8.0, head_width=8),
        },
        "mean",
        seed=21,
        prefix="new.",
        published_config=alibaba,
    ),
    "gte, no types of token, names of transformers": Family(
        "gte", {"num_hidden_layers": 2, "type_vocab_size": 0}, seed=22, own_names=True, prefix="gte."
    ),
    "mpnet": Family("mpnet", {"num_hidden_layers": 3}, seed=29),
    "mpnet, first token, prefixed": Family(
        "mpnet", {"num_hidden_layers": 2, "layer_norm_eps": 1e-3}, "cls", normalize=False, seed=30, prefix="mpnet."
    ),
    "nomic": Family("nomic_bert", {"num_hidden_layers": 3}, seed=23),
    "nomic, as published": Family(
        "nomic_bert", {"num_hidden_layers": 3, "max_position_embeddings": 512}, seed=24, published_config=nomic
    ),
    "nomic, names of transformers": Family(
        "nomic_bert", {"num_hidden_layers": 2}, "cls", normalize=False, seed=25, own_names=True
    ),
    "qwen2": Family("qwen2", {"num_hidden_layers": 3, "num_key_value_heads": 2}, "last", seed=17),
    "qwen2, both ways": Family(
        "qwen2", {"num_hidden_layers": 2, "num_key_value_heads": 1, "is_causal": False}, "mean", seed=18
    ),
    "qwen2, windows": Family(
        "qwen2",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "use_sliding_window": True,
            "sliding_window": 20,
            "max_window_layers": 1,
        },
        "last",
        seed=19,
    ),
    "qwen3": Family("qwen3", {"num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 16}, "last", seed=7),
    "qwen3, one shared head": Family(
        "qwen3",
        {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 4, "rms_norm_eps": 1e-3},
        "mean",
        normalize=False,
        seed=8,
    ),
    "qwen3, as transformers 4 wrote it": Family(
        "qwen3",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "use_sliding_window": True,
            "sliding_window": 20,
            "max_window_layers": 2,
        },
        "last",
        seed=9,
        prefix="model.",
        legacy_config=decoder_of_old,
    ),
    "qwen3, layers by name": Family(
        "qwen3",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 150,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "cls",
        seed=10,
    ),
    "llama": Family("llama", {"num_hidden_layers": 3, "num_key_value_heads": 2}, "last", seed=31),
    "llama, both ways, as NVIDIA published it": Family(
        "llama",
        {
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "is_causal": False,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        "mean",
        seed=32,
        published_config=nvidia,
    ),
    "mistral": Family(
        "mistral", {"num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": None}, "last", seed=11
    ),
    "mistral, windows": Family(
        "mistral",
        {"num_hidden_layers": 3, "num_key_value_heads": 1, "sliding_window": 30, "head_dim": 12},
        "last",
        seed=12,
    ),
}


def adapter(folder: Path, **options: Any) -> DenseAdapter:
    dense = DenseAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, options))
    dense.load("cpu")
    return dense


def encode(loaded: DenseAdapter, texts: list[str]) -> Array:
    return cast("Array", loaded.run(loaded.prepare(texts), threads=1)["dense"])


@pytest.mark.parametrize("family", TINY.values(), ids=TINY)
def test_vectors_equal_those_of_transformers(tmp_path: Path, family: Family) -> None:
    folder = write_family(tmp_path / "model", family)
    np.testing.assert_allclose(encode(adapter(folder), TEXTS), family_oracle(folder, TEXTS, family), atol=1e-5)


@pytest.fixture(scope="module", params=TINY)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DenseAdapter:
    return adapter(write_family(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]))


@given(st.lists(st.text(LETTERS, max_size=300), min_size=1, max_size=7), st.randoms())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_does_not_depend_on_its_batch(loaded: DenseAdapter, texts: list[str], random: Any) -> None:
    alone = np.concatenate([encode(loaded, [text]) for text in texts])
    np.testing.assert_allclose(encode(loaded, texts), alone, atol=1e-5)
    order = random.sample(range(len(texts)), len(texts))
    np.testing.assert_allclose(encode(loaded, [texts[at] for at in order]), alone[order], atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "mistral, windows"])
def test_what_all_texts_begin_with_changes_no_vector(tmp_path: Path, name: str) -> None:
    model = adapter(write_family(tmp_path / "model", TINY[name]))
    texts = [f"Instruct: find what fits it; Query: {each}" for each in TEXTS[:-1]]
    alone = np.concatenate([encode(model, [text]) for text in texts])
    np.testing.assert_allclose(encode(model, texts), alone, atol=1e-5)


def test_the_catalogue_may_say_that_a_decoder_looks_both_ways(tmp_path: Path) -> None:
    both_ways = TINY["qwen2, both ways"]
    folder = write_family(tmp_path / "model", both_ways)
    expected = family_oracle(folder, TEXTS, both_ways)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("is_causal") is False
    file.write_text(json.dumps(config))
    np.testing.assert_allclose(encode(adapter(folder, is_causal=False), TEXTS), expected, atol=1e-5)
    assert np.abs(encode(adapter(folder), TEXTS) - expected).max() > 0.01


def test_an_unknown_architecture_names_the_known_ones(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", TINY["xlm-roberta"])
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(
        LoadError,
        match=r"'t5'; .* bart, bert, deberta-v2, .* modernbert, .* qwen2, .*qwen2_vl_text, qwen3, roberta, xlm-roberta",
    ) as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.DEPENDENCY


@pytest.mark.parametrize(
    "name",
    ["xlm-roberta", "modernbert, ends in a window", "deberta", "qwen3", "mistral, windows", "gemma3", "gte", "mpnet"],
)
def test_half_the_precision_gives_nearly_the_same(tmp_path: Path, name: str) -> None:
    folder = write_family(tmp_path / "model", TINY[name])
    tensors = read_tensors(folder)
    ids = [np.arange(4, 4 + length) % 30 for length in (3, 25, 200)]
    architecture = read_architecture(read_json(folder / "config.json"))
    exact, near = (
        architecture.build(tensors, "cpu", dtype).encode(ids, first_only=False)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert near.dtype is torch.bfloat16
    assert torch.cosine_similarity(exact, near.float()).mean() > 0.99  # bfloat16 has 8 bits, and there are few layers


LLAMA = {
    "rope_type": "llama3",
    "rope_theta": 1e6,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}


@pytest.mark.parametrize(
    ("family", "damage", "error_class", "named"),
    [
        ("qwen3", {"rope_parameters": YARN}, ErrorClass.DEPENDENCY, "rope_type 'yarn'"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, ErrorClass.DEPENDENCY, "rope_type 'yarn'"),
        ("qwen3", {"rope_parameters": {**LLAMA, "high_freq_factor": 1.0}}, ErrorClass.UNKNOWN, "two frequencies"),
        ("qwen3", {"rope_parameters": {**LLAMA, "factor": None}}, ErrorClass.UNKNOWN, "None for the factor"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.5}}, ErrorClass.DEPENDENCY, "mixed_b 0.5"),
        ("gte", {"position_embedding_type": "absolute"}, ErrorClass.DEPENDENCY, "'absolute'"),
        ("gte", {"hidden_act": "mish"}, ErrorClass.DEPENDENCY, "hidden_act 'mish'"),
        ("gte", {"hidden_size": None}, ErrorClass.UNKNOWN, "not that of a gated BERT"),
        ("nomic", {"prenorm": True}, ErrorClass.DEPENDENCY, "prenorm True"),
        ("nomic", {"rotary_emb_fraction": 0.5}, ErrorClass.DEPENDENCY, "rotary_emb_fraction 0.5"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, ErrorClass.DEPENDENCY, "attn_logit_softcapping 50.0"),
        ("gemma3", {"hidden_activation": "silu"}, ErrorClass.DEPENDENCY, "hidden_activation 'silu'"),
        ("gemma3", {"sliding_window": None}, ErrorClass.UNKNOWN, "not that of a decoder"),
        ("qwen3", {"rope_parameters": {"rope_theta": "big"}}, ErrorClass.UNKNOWN, "'big'"),
        ("qwen3", {"attention_bias": True}, ErrorClass.DEPENDENCY, "attention_bias True"),
        ("qwen3", {"layer_types": ["linear_attention"] * 3}, ErrorClass.DEPENDENCY, "'linear_attention'"),
        ("qwen3", {"layer_types": ["full_attention"]}, ErrorClass.UNKNOWN, "1 layers, num_hidden_layers is 3"),
        ("qwen3", {"num_key_value_heads": None}, ErrorClass.UNKNOWN, "not that of a decoder"),
        ("qwen3", {"num_key_value_heads": 1}, ErrorClass.UNKNOWN, r"'layers\.0\.self_attn\.k_proj\.weight' has shape"),
        ("qwen2, windows", {"is_causal": False}, ErrorClass.DEPENDENCY, "is_causal False"),
        ("mistral", {"hidden_act": "gelu"}, ErrorClass.DEPENDENCY, "hidden_act 'gelu'"),
        ("modernbert, first token", {"norm_bias": True}, ErrorClass.DEPENDENCY, "norm_bias True"),
        ("modernbert, first token", {"hidden_activation": "relu"}, ErrorClass.DEPENDENCY, "'relu'"),
        ("modernbert, first token", {"local_attention": "wide"}, ErrorClass.UNKNOWN, "not that of a ModernBERT"),
        ("deberta", {"conv_kernel_size": 3}, ErrorClass.DEPENDENCY, "conv_kernel_size 3"),
        ("deberta", {"position_biased_input": True}, ErrorClass.DEPENDENCY, "position_biased_input True"),
        ("deberta", {"pos_att_type": "p2p|c2p"}, ErrorClass.DEPENDENCY, "pos_att_type 'p2p'"),
        ("deberta", {"type_vocab_size": 2}, ErrorClass.DEPENDENCY, "type_vocab_size 2"),
        ("deberta", {"attention_head_size": 16}, ErrorClass.DEPENDENCY, "attention_head_size 16"),
        ("deberta", {"position_buckets": 16}, ErrorClass.UNKNOWN, r"'encoder\.rel_embeddings\.weight' has shape"),
        ("deberta", {"share_att_key": False}, ErrorClass.UNKNOWN, r"pos_key_proj\.weight' is missing"),
        ("deberta", {"num_attention_heads": None}, ErrorClass.UNKNOWN, "not that of a DeBERTa"),
        ("xlm-roberta", {"position_embedding_type": "relative_key"}, ErrorClass.DEPENDENCY, "'relative_key'"),
        ("xlm-roberta", {"pad_token_id": None}, ErrorClass.UNKNOWN, "not that of a BERT"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, family: str, damage: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    folder = write_family(tmp_path / "model", TINY[family])
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class
