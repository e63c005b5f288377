"""BERT checkpoints as the packed encoder wants them: fused, transposed and scaled once, at load time."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sie_server.adapters.shared import distance_bias, mpnet
from sie_server.adapters.shared.checkpoint import Checkpoint, Get, expect, read_numbers
from sie_server.adapters.shared.experts import Experts, Routing, read_experts
from sie_server.adapters.shared.linear import InPlace
from sie_server.adapters.shared.lora import TABLES, Place
from sie_server.adapters.shared.rope import Rope, read_rope, side_by_side

# RoBERTa counts its positions from the one after the padding token's id; the rows before it are never used.
_FIRST_POSITION_AFTER_PAD = ("mpnet", "roberta", "xlm-roberta")
_TURNED = re.compile(r"\.self\.(query|key)\.(weight|bias)$")
_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
_EXTRA_NORMS = ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1")
_PREFIX = re.compile(r"^(bert|distilbert|mpnet|roberta|nomic_bert|new|gte)\.")


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of a BERT configuration. `positions` are usable ones; the first of them is row `first_position`.

    With `rope`, positions are not learned but turn queries and keys; with `alibi`, distances lower scores. With `gate`,
    inner layers are twice as wide: one half is activated so and multiplied with the other. With `routing`, some have
    experts.
    """

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    norm_eps: float
    first_position: int = 0
    rope: Rope | None = None
    gate: InPlace | None = None
    alibi: bool = False
    routing: Routing | None = None

    @property
    def head_width(self) -> int:
        """Components of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and shift of one layer normalisation, each [width]."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. Weights are [in, out] and contiguous; queries already carry the factor 1/sqrt(head width).

    If they are to be turned, queries and keys have their pairs side by side. With `gate`, `up` gives what is activated
    first, then what it is multiplied with. With `experts`, they take the place of `up` and `down`, which are empty.
    With `extra_norms` queries and keys are normalised, and so is the sum of what attention gives and what went in; the
    first of them carries the factor.
    """

    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    out: torch.Tensor
    out_bias: torch.Tensor
    attention_norm: Norm
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    output_norm: Norm
    gate: InPlace | None = None
    experts: Experts | None = None
    extra_norms: tuple[Norm, Norm, Norm] | None = None


@dataclass(frozen=True, slots=True)
class BertWeights:
    """A whole encoder. `positions`, or else `words`, already carry the embedding of token type 0.

    `types` are what other types add to it. `distances` [heads, 2 x positions - 1] are added to scores.
    """

    words: torch.Tensor
    positions: torch.Tensor | None
    types: torch.Tensor
    norm: Norm
    layers: tuple[Layer, ...]
    distances: torch.Tensor | None = None


def read_shape(config: Mapping[str, Any], model_types: Sequence[str]) -> BertShape:
    """The shape of a `config.json` of one of these types, which may be `bert`, `roberta` and `xlm-roberta`.

    Raises:
        LoadError: DEPENDENCY when the architecture is another one, UNKNOWN when its numbers are missing.
    """
    expect(config, "model_type", *model_types)
    expect(config, "hidden_act", "gelu")
    expect(config, "position_embedding_type", "absolute", "rotary", default="absolute")
    rotary = config.get("position_embedding_type") == "rotary"

    def read() -> BertShape:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        first = int(config["pad_token_id"]) + 1 if config["model_type"] in _FIRST_POSITION_AFTER_PAD else 0
        return BertShape(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]) - first,
            norm_eps=float(config.get("layer_norm_eps", 1e-12)),
            first_position=first,
            rope=read_rope(config, "rotary_emb_base", 10_000.0, width // heads) if rotary else None,
        )

    return read_numbers("BERT", read)


def read_weights(tensors: Mapping[str, torch.Tensor], shape: BertShape, device: str, dtype: torch.dtype) -> BertWeights:
    """Collect a checkpoint's tensors under their names, prefixed or not, old normalisation names included.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    checkpoint = Checkpoint(tensors, canonical, device)
    get = checkpoint.get
    query_scale = 1.0 / math.sqrt(shape.head_width)
    first, words = shape.first_position, get("embeddings.word_embeddings.weight")
    types = get("embeddings.token_type_embeddings.weight")
    positions = None
    if shape.rope is None and not shape.alibi:
        learned = get("embeddings.position_embeddings.weight", first + shape.positions, shape.width)[first:]
        positions = (learned + types[0]).to(dtype)
    else:
        words = words + types[0]
    if shape.rope is not None:
        get = _side_by_side(get, shape.head_width)

    def layer(index: int) -> Layer:
        prefix = f"encoder.layer.{index}"
        has_more = checkpoint.has(f"{prefix}.{_EXTRA_NORMS[0]}.weight")
        scale = 1.0 if has_more else query_scale  # a norm would undo it
        own = read_layer(get, prefix, shape.width, scale, dtype, shape.gate, experts(index))
        if not has_more:
            return own
        query, key, behind = (read_norm(get, f"{prefix}.{name}", shape.width, dtype) for name in _EXTRA_NORMS)
        return replace(own, extra_norms=(Norm(query.weight * query_scale, query.bias * query_scale), key, behind))

    def experts(index: int) -> Experts | None:
        if shape.routing is None or not shape.routing.is_at(index):
            return None
        return read_experts(get, f"encoder.layer.{index}.mlp", shape.routing, shape.width, shape.inner, dtype)

    return BertWeights(
        words=words.to(dtype),
        positions=positions,
        types=(types - types[0]).to(dtype),
        norm=read_norm(get, "embeddings.LayerNorm", shape.width, dtype),
        layers=tuple(layer(index) for index in range(shape.layers)),
        distances=_read_distances(checkpoint, shape),
    )


def _read_distances(checkpoint: Checkpoint, shape: BertShape) -> torch.Tensor | None:
    if shape.alibi:
        return distance_bias.alibi(shape.heads, shape.positions).to(checkpoint.device)
    table = checkpoint.find(mpnet.TABLE, distance_bias.BUCKETS, shape.heads)
    return None if table is None else distance_bias.learned(table, shape.positions)


def read_norm(get: Get, name: str, width: int, dtype: torch.dtype = torch.float32) -> Norm:
    """One layer normalisation."""
    return Norm(get(f"{name}.weight", width).to(dtype), get(f"{name}.bias", width).to(dtype))


def read_linear(
    get: Get, names: Sequence[str], scale_first: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [in, out] and bias of one or several dense layers beside each other, the first of them scaled."""
    scales = (scale_first, *[1.0] * (len(names) - 1))
    weights = [get(f"{name}.weight") * scale for name, scale in zip(names, scales, strict=True)]
    biases = [get(f"{name}.bias") * scale for name, scale in zip(names, scales, strict=True)]
    return torch.cat(weights).t().contiguous().to(dtype), torch.cat(biases).to(dtype)


def read_layer(
    get: Get,
    prefix: str,
    width: int,
    query_scale: float,
    dtype: torch.dtype,
    gate: InPlace | None = None,
    experts: Experts | None = None,
) -> Layer:
    """One block under BERT's names; with `gate`, `intermediate.gate` is what is activated."""
    attention, nothing = f"{prefix}.attention.self", torch.empty(0)
    inner = [f"{prefix}.intermediate.{part}" for part in (("dense",) if gate is None else ("gate", "dense"))]
    return Layer(
        *read_linear(get, [f"{attention}.{part}" for part in ("query", "key", "value")], query_scale, dtype),
        *read_linear(get, [f"{prefix}.attention.output.dense"], 1.0, dtype),
        read_norm(get, f"{prefix}.attention.output.LayerNorm", width, dtype),
        *(read_linear(get, inner, 1.0, dtype) if experts is None else (nothing, nothing)),
        *(read_linear(get, [f"{prefix}.output.dense"], 1.0, dtype) if experts is None else (nothing, nothing)),
        read_norm(get, f"{prefix}.output.LayerNorm", width, dtype),
        gate,
        experts,
    )


def places(shape: BertShape, weights: BertWeights) -> dict[str, Place]:
    """Where the linear layers of the blocks stand, by their names in a checkpoint under BERT's names."""
    width, inner, found = shape.width, shape.inner, dict[str, Place]()

    def turned(rows: torch.Tensor, by: float = 1.0) -> torch.Tensor:
        return by * (rows if shape.rope is None else side_by_side(rows, shape.head_width))

    for at, layer in enumerate(weights.layers):
        scale = 1.0 if layer.extra_norms is not None else 1.0 / math.sqrt(shape.head_width)
        prefix, gated = f"encoder.layer.{at}", 0 if layer.gate is None else inner
        own = {
            "attention.self.query": Place(at, "qkv", 0, width, width, partial(turned, by=scale)),
            "attention.self.key": Place(at, "qkv", width, width, width, turned),
            "attention.self.value": Place(at, "qkv", 2 * width, width, width),
            "attention.output.dense": Place(at, "out", 0, width, width),
        }
        if layer.gate is not None:
            own["intermediate.gate"] = Place(at, "up", 0, inner, width)
        if layer.experts is None:
            own["intermediate.dense"] = Place(at, "up", gated, inner, width)
            own["output.dense"] = Place(at, "down", 0, width, inner)
        found |= {f"{prefix}.{name}": place for name, place in own.items()}
    return found


def tables(shape: BertShape, weights: BertWeights) -> dict[str, Place]:
    """The embeddings that a LoRA may change, by their names in a checkpoint; positions are not among them."""
    rows = {"words": len(weights.words), "types": len(weights.types)}
    names = {"words": "embeddings.word_embeddings", "types": "embeddings.token_type_embeddings"}
    return {names[table]: Place(TABLES, table, 0, shape.width, count) for table, count in rows.items()}


def _side_by_side(get: Get, head_width: int) -> Get:
    """The same tensors, those of queries and keys with the two of each pair beside each other."""

    def ordered(name: str, *wanted: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        tensor = get(name, *wanted, dtype=dtype)
        return side_by_side(tensor, head_width) if _TURNED.search(name) else tensor

    return ordered


def canonical(name: str) -> str:
    """A tensor's name without `bert.`, `roberta.` and their like, in the spelling of today."""
    return _PREFIX.sub("", current_name(name))


def current_name(name: str) -> str:
    """A tensor's name with normalisations spelled as today."""
    for old, new in _OLD_NAMES:
        name = name.replace(old, new)
    return name
