"""MPNet as what it is: a BERT under other names, without token types, with distances beside its positions."""

import re
from collections.abc import Mapping
from typing import Final

import torch

TABLE: Final = "encoder.relative_attention_bias.weight"  # [buckets, heads]
_PARTS: Final = {
    "attention.attn.q.": "attention.self.query.",
    "attention.attn.k.": "attention.self.key.",
    "attention.attn.v.": "attention.self.value.",
    "attention.attn.o.": "attention.output.dense.",
    "attention.LayerNorm.": "attention.output.LayerNorm.",
}
_ANY: Final = re.compile("|".join(map(re.escape, _PARTS)))


def as_bert(tensors: Mapping[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """Its checkpoint under BERT's names."""
    named = {_ANY.sub(lambda part: _PARTS[part[0]], name): tensor for name, tensor in tensors.items()}
    return {"embeddings.token_type_embeddings.weight": torch.zeros(1, width), **named}
