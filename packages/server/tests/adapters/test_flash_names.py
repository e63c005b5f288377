"""XLM-RoBERTa as Jina AI publishes it: other names, one matrix for queries, keys and values, positions that turn."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, Pair, WeightsSource
from sie_server.adapters.colbert import ColbertAdapter
from sie_server.adapters.cross_encoder import CrossEncoderAdapter
from tiny_families import COMMON, TOKENIZERS, WIDTH, shake
from tiny_rerankers import pair_logits, set_config, write_pair_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

# What their configurations say of an architecture.
CODE = {"AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig"}
MARKERS, MASK = ("[QueryMarker]", "[DocumentMarker]"), "<mask>"
DIMS, LENGTH, THETA = 12, 24, 500.0
TEXTS = ["the cat sat.", "", "two dogs, running far away", "a long document: " * 30]
# In the order in which a name is changed; the last two are of the model that transformers has by itself.
PUBLISHED = (
    ("embeddings.LayerNorm.", "emb_ln."),
    ("encoder.layer.", "encoder.layers."),
    ("attention.output.dense.", "mixer.out_proj."),
    ("attention.output.LayerNorm.", "norm1."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("output.LayerNorm.", "norm2."),
    ("attention.self.", "self_attn."),
    ("self_attn.o_proj.", "mixer.out_proj."),
    ("post_attention_layernorm.", "norm1."),
    ("post_mlp_layernorm.", "norm2."),
)


def published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same under the names of Jina AI, queries, keys and values in one tensor."""
    named: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        for old, new in PUBLISHED:
            name = name.replace(old, new)  # noqa: PLW2901 - step by step
        layer, fused, part = name.rpartition("self_attn.")
        if not fused:
            named[name] = tensor
            continue
        which, kind = part.replace("_proj", "").split(".")
        parts.setdefault(f"{layer}mixer.Wqkv.{kind}", [tensor] * 3)["qkv".index(which[0])] = tensor
    return named | {name: torch.cat(each) for name, each in parts.items()}


def write_colbert(folder: Path) -> JinaEmbeddingsV3Model:
    """A published folder of late interaction with positions that turn; returns the model behind it."""
    torch.manual_seed(4)
    tokenizer = TOKENIZERS["xlm-roberta"]()
    tokenizer.add_special_tokens([MASK, *MARKERS])
    numbers = {**COMMON, "num_hidden_layers": 3, "vocab_size": tokenizer.get_vocab_size()}
    rope = {"rope_type": "default", "rope_theta": THETA}
    config = JinaEmbeddingsV3Config(**numbers, max_position_embeddings=514, rope_parameters=rope)
    config._attn_implementation = "eager"
    model = JinaEmbeddingsV3Model(config, add_pooling_layer=False).eval()
    shake(model)
    tensors = {name.replace("layers.", "encoder.layers.", 1): each for name, each in model.state_dict().items()}
    named = {f"roberta.{name}": each.contiguous() for name, each in published(tensors).items()}
    folder.mkdir()
    save_file({**named, "linear.weight": torch.randn(DIMS, WIDTH)}, folder / "model.safetensors")
    own = {"auto_map": CODE, "position_embedding_type": "rotary", "rotary_emb_base": THETA}
    rest = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1, "max_position_embeddings": 514}
    (folder / "config.json").write_text(json.dumps({**numbers, **rest, **own}))
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def colbert(folder: Path, **options: Any) -> ColbertAdapter:
    given = {"query_marker": MARKERS[0], "doc_marker": MARKERS[1], "query_length": LENGTH, **options}
    made = ColbertAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"multivector": DIMS}, given))
    made.load("cpu")
    return made


def recipe(model: JinaEmbeddingsV3Model, folder: Path, text: str, *, is_query: bool, seen: bool) -> Array:
    """One text by hand: mark, fill up, project, normalise."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation((LENGTH if is_query else 512) - 1)
    ids, known = tokenizer.encode(text).ids, tokenizer.get_vocab()
    ids.insert(1, known[MARKERS[0] if is_query else MARKERS[1]])
    filling = LENGTH - len(ids) if is_query else 0
    attended = [1] * len(ids) + [int(seen)] * filling
    ids += [known[MASK]] * filling
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attended])).last_hidden_state[0]
    rows = hidden @ load_file(folder / "model.safetensors")["linear.weight"].t()
    rows = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    if is_query:
        return np.asarray(rows)
    punctuation = {tokenizer.token_to_id(each) for each in ",.:-_"}
    return np.asarray(rows[[each not in punctuation for each in ids]])


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("is_query", [True, False])
def test_token_vectors_equal_those_of_transformers(tmp_path: Path, is_query: bool, seen: bool) -> None:
    folder = tmp_path / "model"
    model = write_colbert(folder)
    loaded = colbert(folder, expansion_seen=seen)
    found: Any = loaded.run(loaded.prepare(TEXTS, is_query=is_query), threads=1)["multivector"]
    for text, rows in zip(TEXTS, found, strict=True):
        expected = recipe(model, folder, text, is_query=is_query, seen=seen)
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize(
    "code", [None, "x.AutoConfig", {}, {"AutoConfig": None}, {"AutoConfig": "org/m--x.OtherConfig"}]
)
def test_a_configuration_of_another_class_names_its_architecture_itself(tmp_path: Path, code: Any) -> None:
    folder = write_pair_model(tmp_path / "model", "xlm-roberta")
    set_config(folder, model_type=None, auto_map=code)
    with pytest.raises(LoadError, match="model_type None"):
        CrossEncoderAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {})).load("cpu")


def test_a_reranker_under_these_names_scores_as_under_its_own(tmp_path: Path) -> None:
    folder = write_pair_model(tmp_path / "model", "xlm-roberta")
    pairs = [Pair("the cat", "sat on a mat"), Pair("", ""), Pair("dogs", "far away " * 40), Pair("a" * 90, "b")]
    logits = pair_logits(folder, pairs, 512)
    file = folder / "model.safetensors"
    save_file({name: each.contiguous() for name, each in published(load_file(file)).items()}, file)
    assert not any(".self." in name for name in load_file(file))
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": CODE}))
    loaded = CrossEncoderAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}))
    loaded.load("cpu")
    assert np.ptp(logits) > 0.05
    scores = loaded.run(loaded.prepare(pairs), threads=1)["score"]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
