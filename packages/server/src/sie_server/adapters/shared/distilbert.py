"""DistilBERT as what it is: a BERT under other names, without token types. Changes names, never numbers."""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

_CONFIG: Final = {
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}
_PARTS: Final = (
    ("distilbert.", ""),
    ("transformer.layer.", "encoder.layer."),
    ("attention.q_lin.", "attention.self.query."),
    ("attention.k_lin.", "attention.self.key."),
    ("attention.v_lin.", "attention.self.value."),
    ("attention.out_lin.", "attention.output.dense."),
    ("sa_layer_norm.", "attention.output.LayerNorm."),
    ("ffn.lin1.", "intermediate.dense."),
    ("ffn.lin2.", "output.dense."),
    ("output_layer_norm.", "output.LayerNorm."),
)
_ANY: Final = re.compile("|".join(re.escape(old) for old, _ in _PARTS))


def as_bert(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A DistilBERT checkpoint under BERT's names; any other checkpoint as it is.

    Raises:
        LoadError: UNKNOWN when the configuration lacks the width.
    """
    if config.get("model_type") != "distilbert":
        return dict(config), dict(tensors)
    if not isinstance(config.get("dim"), int):
        raise LoadError(ErrorClass.UNKNOWN, "config.json is not that of a DistilBERT: it has no 'dim'")
    renamed = {_CONFIG.get(key, key): value for key, value in config.items()} | {"model_type": "bert"}
    names = dict(_PARTS)
    named = {_ANY.sub(lambda part: names[part[0]], name): tensor for name, tensor in tensors.items()}
    named["embeddings.token_type_embeddings.weight"] = torch.zeros(1, config["dim"])
    return renamed, named
