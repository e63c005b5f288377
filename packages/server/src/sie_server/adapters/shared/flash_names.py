"""XLM-RoBERTa as Jina AI publishes it, with queries, keys and values in one matrix, as what it is: a BERT.

Changes names and cuts one matrix in three, never numbers. Its configurations name a class of code, and no architecture.
jina-embeddings-v3 keeps LoRAs of its own beside each matrix (`task_loras`), which are left out here. transformers has
it under names of its own, as `jina_embeddings_v3`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

_PARTS: Final = {
    "emb_ln.": "embeddings.LayerNorm.",
    "encoder.layers.": "encoder.layer.",
    "mixer.out_proj.": "attention.output.dense.",
    "norm1.": "attention.output.LayerNorm.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "norm2.": "output.LayerNorm.",
}
_NATIVE: Final = {
    "self_attn.q_proj.": "attention.self.query.",
    "self_attn.k_proj.": "attention.self.key.",
    "self_attn.v_proj.": "attention.self.value.",
    "self_attn.o_proj.": "attention.output.dense.",
    "post_attention_layernorm.": "attention.output.LayerNorm.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "post_mlp_layernorm.": "output.LayerNorm.",
}
_ANY: Final = re.compile("|".join(map(re.escape, _PARTS)))
_ANY_NATIVE: Final = re.compile("|".join(map(re.escape, _NATIVE)))
# What no other BERT has in its names: of the published layout, and of transformers' own.
_PUBLISHED: Final = re.compile(r"^(roberta\.)?(emb_ln|encoder\.layers)\.")
_OWN: Final = re.compile(r"^((?:roberta\.)?)layers\.")
_WITH_LORA, _LORA = ".parametrizations.weight.original", ".parametrizations.weight.0."
_FUSED: Final = "mixer.Wqkv."
_SELF: Final = "attention.self."
_CLASS: Final = "XLMRobertaFlashConfig"
_MODEL_TYPE: Final = "jina_embeddings_v3"
_THETA: Final = 20_000.0  # of transformers' configuration, where it says nothing


def with_model_type(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the architecture that such a class stands for; any other configuration as it is."""
    if config.get("model_type") == _MODEL_TYPE:
        own = {"model_type": "xlm-roberta", "position_embedding_type": "rotary"}
        return {"rotary_emb_base": _THETA, **config, **own}
    codes = config.get("auto_map")
    code = codes.get("AutoConfig") if isinstance(codes, Mapping) else None
    if config.get("model_type") or not isinstance(code, str) or code.rpartition(".")[2] != _CLASS:
        return dict(config)
    return {**config, "model_type": "xlm-roberta"}


def split(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Such a checkpoint under BERT's names; any other checkpoint as it is."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = _plain(name.replace(_WITH_LORA, ".weight"))
        if _LORA in name:
            continue
        if _FUSED in plain:
            for part, own in zip(("query.", "key.", "value."), tensor.chunk(3), strict=True):
                found[plain.replace(_FUSED, _SELF + part)] = own
        else:
            found[plain] = tensor
    return found


def _plain(name: str) -> str:
    """The name that a BERT has for a tensor, but for what is fused."""
    if _PUBLISHED.search(name):
        return _ANY.sub(lambda part: _PARTS[part[0]], name)
    if _OWN.search(name):
        return _ANY_NATIVE.sub(lambda part: _NATIVE[part[0]], _OWN.sub(r"\1encoder.layer.", name))
    return name
