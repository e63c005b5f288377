"""DeBERTa v2 and v3 checkpoints as their packed encoder wants them: fused, transposed and scaled once, at load time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from sie_server.adapters.shared.bert_weights import Layer, Norm, current_name, read_layer, read_norm
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers

_NAMES: Final = tuple((f"self.{part}_proj.", f"self.{part}.") for part in ("query", "key", "value"))
_TERMS: Final = frozenset({"c2p", "p2c"})


@dataclass(frozen=True, slots=True)
class DebertaShape:
    """The numbers of a DeBERTa configuration.

    Distances up to `buckets` / 2 are told apart one by one, farther ones up to `max_distance` in logarithmic steps;
    without `buckets` all up to `max_distance`. `terms`: c2p, where a query looks, and p2c, from where a key is seen.
    """

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    norm_eps: float
    buckets: int
    max_distance: int
    terms: frozenset[str]
    shares_projections: bool
    norms_distances: bool

    @property
    def head_width(self) -> int:
        """Components of one attention head."""
        return self.width // self.heads

    @property
    def span(self) -> int:
        """Rows of the table of distances in each direction."""
        return self.buckets if self.buckets > 0 else self.max_distance

    @property
    def query_scale(self) -> float:
        """What every score is multiplied with: the more terms, the less."""
        return 1.0 / math.sqrt(self.head_width * (1 + len(self.terms)))


@dataclass(frozen=True, slots=True)
class Distances:
    """One layer's rows for each distance, [heads, 2 x span, head width]; None: the model lacks that term.

    `keys` are compared with queries, `queries`, which carry the scale of scores, with keys.
    """

    keys: torch.Tensor | None
    queries: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class DebertaWeights:
    """A whole encoder. Its layers are BERT's; what positions add stands beside them."""

    words: torch.Tensor
    norm: Norm
    layers: tuple[Layer, ...]
    distances: tuple[Distances, ...]


def read_shape(config: Mapping[str, Any]) -> DebertaShape:
    """The shape of a `config.json` with `model_type` deberta-v2, as v3 and its multilingual sibling have it too.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here (the convolution of v2-xlarge, absolute
            positions), UNKNOWN when numbers are missing.
    """
    expect(config, "hidden_act", "gelu")
    expect(config, "relative_attention", True)
    expect(config, "position_biased_input", False, default=True)
    expect(config, "conv_kernel_size", 0, None)
    expect(config, "type_vocab_size", 0, default=0)
    expect(config, "embedding_size", config.get("hidden_size"), None)
    asked = config.get("pos_att_type") or ()
    terms = frozenset(asked.lower().split("|") if isinstance(asked, str) else asked)
    for term in sorted(terms):
        expect({"pos_att_type": term}, "pos_att_type", *sorted(_TERMS))

    def read() -> DebertaShape:
        positions = int(config["max_position_embeddings"])
        distance = int(config.get("max_relative_positions", -1))
        return DebertaShape(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            positions=positions,
            norm_eps=float(config.get("layer_norm_eps", 1e-7)),
            buckets=int(config.get("position_buckets", -1)),
            max_distance=distance if distance > 0 else positions,
            terms=terms,
            shares_projections=bool(config.get("share_att_key", False)),
            norms_distances="layer_norm" in str(config.get("norm_rel_ebd", "none")).lower().split("|"),
        )

    shape = read_numbers("DeBERTa", read)
    expect(config, "attention_head_size", shape.head_width, None)
    return shape


def read_weights(
    tensors: Mapping[str, torch.Tensor], shape: DebertaShape, device: str, dtype: torch.dtype
) -> DebertaWeights:
    """Collect a checkpoint's tensors under their names, with or without `deberta.`.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, canonical, device).get
    table = get("encoder.rel_embeddings.weight", 2 * shape.span, shape.width)
    if shape.norms_distances:
        norm = read_norm(get, "encoder.LayerNorm", shape.width)
        table = functional.layer_norm(table, (shape.width,), norm.weight, norm.bias, shape.norm_eps)

    def rows(name: str, scale: float) -> torch.Tensor:
        projected = functional.linear(table, get(f"{name}.weight", shape.width, shape.width), get(f"{name}.bias"))
        by_head = (projected * scale).view(len(table), shape.heads, shape.head_width).transpose(0, 1)
        return by_head.to(dtype).contiguous()

    def distances(index: int) -> Distances:
        prefix = f"encoder.layer.{index}.attention.self"
        key, query = ("key", "query") if shape.shares_projections else ("pos_key_proj", "pos_query_proj")
        return Distances(
            keys=rows(f"{prefix}.{key}", 1.0) if "c2p" in shape.terms else None,
            queries=rows(f"{prefix}.{query}", shape.query_scale) if "p2c" in shape.terms else None,
        )

    return DebertaWeights(
        words=get("embeddings.word_embeddings.weight").to(dtype),
        norm=read_norm(get, "embeddings.LayerNorm", shape.width, dtype),
        layers=tuple(
            read_layer(get, f"encoder.layer.{index}", shape.width, shape.query_scale, dtype)
            for index in range(shape.layers)
        ),
        distances=tuple(distances(index) for index in range(shape.layers)),
    )


def canonical(name: str) -> str:
    """A tensor's name without `deberta.`, and as BERT calls it where both have it."""
    for own, berts in _NAMES:
        name = name.replace(own, berts)
    return current_name(name).removeprefix("deberta.")
