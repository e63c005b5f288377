"""XLM-RoBERTa as Jina AI publishes it, with queries, keys and values in one matrix, as what it is: a BERT.

Changes names and cuts one matrix in three, never numbers. Its configurations name a class of code, and no architecture.
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
_ANY: Final = re.compile("|".join(map(re.escape, _PARTS)))
_FUSED: Final = "mixer.Wqkv."
_SELF: Final = "attention.self."
_CLASS: Final = "XLMRobertaFlashConfig"


def with_model_type(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the architecture that such a class stands for; any other configuration as it is."""
    codes = config.get("auto_map")
    code = codes.get("AutoConfig") if isinstance(codes, Mapping) else None
    if config.get("model_type") or not isinstance(code, str) or code.rpartition(".")[2] != _CLASS:
        return dict(config)
    return {**config, "model_type": "xlm-roberta"}


def split(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Such a checkpoint under BERT's names; any other checkpoint as it is."""
    if not any(_FUSED in name for name in tensors):
        return dict(tensors)
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = _ANY.sub(lambda part: _PARTS[part[0]], name)
        if _FUSED in plain:
            for part, own in zip(("query.", "key.", "value."), tensor.chunk(3), strict=True):
                found[plain.replace(_FUSED, _SELF + part)] = own
        else:
            found[plain] = tensor
    return found
