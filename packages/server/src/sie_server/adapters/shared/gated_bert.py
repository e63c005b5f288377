"""BERTs whose inner layers are gated, and whose positions are not learned, as what they are: BERTs under other names.

Nomic's `nomic_bert`, and Alibaba's encoder, which calls itself `new` in its own repositories, `gte` in transformers and
in Snowflake's; their positions turn. Each is read in the layout it was published in and in that of transformers.
Nomic's second generation has experts in every other layer, and no gates. Jina AI's second generation calls itself
`bert`, but has ALiBi in place of positions; its model of code has more norms. Changes names, cuts matrices in parts and
fills in biases that a family has not; no number changes.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.bert_weights import BertShape
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.experts import Routing
from sie_server.adapters.shared.linear import gelu_, relu_, silu_
from sie_server.adapters.shared.rope import read_rope
from sie_server.core.lifecycle import ErrorClass

MODEL_TYPES: Final = ("gte", "new", "nomic_bert")
_NOMIC: Final = "nomic_bert"
_JINA: Final = "bert"
_THETAS: Final = {"gte": 160_000.0, "new": 10_000.0, _NOMIC: 1000.0}  # where a configuration is silent
_GATES: Final = {"gelu": gelu_, "geglu": gelu_, "relu": relu_, "reglu": relu_, "silu": silu_, "swiglu": silu_}
# What configurations of Nomic, made after GPT-2's, call the numbers of a BERT.
_GPT: Final = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "activation_function": "hidden_act",
}
_PARTS: Final = {
    "emb_ln.": "embeddings.LayerNorm.",
    "self_attn.o_proj.": "attention.output.dense.",
    "attention.o_proj.": "attention.output.dense.",
    "attn.out_proj.": "attention.output.dense.",
    "self_attn.q_proj.": "attention.self.query.",
    "self_attn.k_proj.": "attention.self.key.",
    "self_attn.v_proj.": "attention.self.value.",
    "post_attention_layernorm.": "attention.output.LayerNorm.",
    "attn_ln.": "attention.output.LayerNorm.",
    "norm1.": "attention.output.LayerNorm.",
    "mlp.up_proj.": "intermediate.dense.",
    "mlp.fc11.": "intermediate.dense.",
    "mlp.gate_proj.": "intermediate.gate.",
    "mlp.fc12.": "intermediate.gate.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.down_proj.": "output.dense.",
    "mlp.fc2.": "output.dense.",
    "mlp.wo.": "output.dense.",
    "mlp.down_layer.": "output.dense.",
    "post_mlp_layernorm.": "output.LayerNorm.",
    "mlp_ln.": "output.LayerNorm.",
    "mlp.layernorm.": "output.LayerNorm.",
    "layer_norm_2.": "output.LayerNorm.",
    "norm2.": "output.LayerNorm.",
}
_ANY: Final = re.compile("|".join(map(re.escape, _PARTS)))
_LAYERS: Final = re.compile(r"^(?:(?:new|gte|nomic_bert|bert)\.)?(?:encoder\.)?layers?\.(\d+)\.")
_QKV: Final = tuple(f"attention.self.{part}." for part in ("query", "key", "value"))
_FUSED: Final = {
    "attention.qkv_proj.": _QKV,
    "attn.Wqkv.": _QKV,
    "mlp.up_gate_proj.": ("intermediate.dense.", "intermediate.gate."),
    "mlp.up_gated_layer.": ("intermediate.dense.", "intermediate.gate."),
    "mlp.gated_layers.": ("intermediate.gate.", "intermediate.dense."),
}
_WEIGHT: Final = re.compile(
    r"(encoder\.layer\.\d+\.(?:attention\.(?:self|output)|intermediate|output)\.[a-z]+\.)weight"
)


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """The shape of a `config.json` of one of these types.

    Raises:
        LoadError: DEPENDENCY for a variety that no published embedding model has, UNKNOWN when numbers are missing.
    """
    own = _renamed(config)
    expect(own, "model_type", *MODEL_TYPES, _JINA)
    expect(own, "hidden_act", *_GATES)
    alibi = has_alibi(own)
    if not alibi:
        expect(own, "position_embedding_type", "rope", "rotary", default="rope")
    expect(own, "layer_norm_type", "layer_norm", default="layer_norm")
    expect(own, "rotary_emb_fraction", 1.0, default=1.0)
    for flag in ("prenorm", "parallel_block", "use_rms_norm", "rotary_emb_interleaved", "logn_attention_scale"):
        expect(own, flag, False, None)
    expect(own, "num_shared_experts", 0, None)
    for flag in ("moe_normalize_expert_weights", "expert_choice_router"):
        expect(own, flag, False, None)

    def read() -> BertShape:
        width, heads = int(own["hidden_size"]), int(own["num_attention_heads"])
        old_key = "rotary_emb_base" if own["model_type"] == _NOMIC else "rope_theta"
        return BertShape(
            layers=int(own["num_hidden_layers"]),
            width=width,
            heads=heads,
            inner=int(own["intermediate_size"]),
            positions=int(own.get("max_trained_positions") or own["max_position_embeddings"]),
            norm_eps=float(own.get("layer_norm_eps", 1e-12)),
            rope=None if alibi else read_rope(own, old_key, _THETAS[own["model_type"]], width // heads),
            gate=None if own["model_type"] == _NOMIC and own["hidden_act"] == "gelu" else _GATES[own["hidden_act"]],
            alibi=alibi,
            routing=_read_routing(own),
        )

    return read_numbers("gated BERT", read)


def _read_routing(config: Mapping[str, Any]) -> Routing | None:
    if not config.get("num_experts"):
        return None
    return Routing(int(config["num_experts"]), int(config["moe_top_k"]), int(config["moe_every_n_layers"]))


def has_alibi(config: Mapping[str, Any]) -> bool:
    """Whether a `bert` is one of Jina AI's, whose scores tell distances."""
    return config.get("model_type") == _JINA and config.get("position_embedding_type") == "alibi"


def read_types(config: Mapping[str, Any]) -> int | None:
    """How many types of token there are; None where all are of one."""
    types = int(config.get("type_vocab_size") or 0)
    return types if types > 1 else None


def as_bert(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint under BERT's names.

    Raises:
        LoadError: UNKNOWN when the configuration lacks the width.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        inside = _LAYERS.sub(r"encoder.layer.\1.", name)
        fused = next((each for each in _FUSED if each in inside), None)
        if fused is None:
            found[_ANY.sub(lambda part: _PARTS[part[0]], inside)] = tensor
            continue
        for part, own in zip(_FUSED[fused], tensor.chunk(len(_FUSED[fused])), strict=True):
            found[inside.replace(fused, part)] = own
    return {**_zeros(_renamed(config), found), **found}


def _zeros(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a BERT adds and these do not: biases, and a type of token where there are none."""
    if not isinstance(config.get("hidden_size"), int):
        raise LoadError(ErrorClass.UNKNOWN, "config.json is not that of a gated BERT: it has no 'hidden_size'")
    weights = [found for name in tensors if (found := _WEIGHT.fullmatch(name))]
    lacking = [each for each in weights if config["model_type"] == _NOMIC or ".intermediate." in each[1]]
    zeros = {f"{each[1]}bias": torch.zeros(len(tensors[each[0]])) for each in lacking}
    if not config.get("type_vocab_size", 2):
        zeros["embeddings.token_type_embeddings.weight"] = torch.zeros(1, config["hidden_size"])
    return zeros


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration under BERT's names, with the activation that its family has by default."""
    default = "silu" if config.get("model_type") == _NOMIC else "gelu"
    own = {"hidden_act": default, **{_GPT.get(key, key): value for key, value in config.items()}}
    return own | ({"hidden_act": own.get("feed_forward_type") or own["hidden_act"]} if has_alibi(own) else {})
