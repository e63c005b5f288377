"""Decoder checkpoints as the pre-norm encoder wants them.

Qwen3 has a norm inside its heads, Mistral has none, and Qwen2 has biases instead.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from sie_server.adapters.shared.attention import Sight
from sie_server.adapters.shared.checkpoint import FULL, SLIDING, Checkpoint, expect, read_kinds, read_numbers
from sie_server.adapters.shared.linear import silu_
from sie_server.adapters.shared.prenorm import Layer, PreNormShape, PreNormWeights, rms_norm
from sie_server.adapters.shared.rope import read_rope, side_by_side

_WITH_HEAD_NORM = ("qwen3",)
_WITH_BIAS = ("qwen2",)


def read_shape(config: Mapping[str, Any]) -> PreNormShape:
    """The shape of a `config.json` of Qwen2, Qwen3 or Mistral.

    Raises:
        LoadError: DEPENDENCY for a variety that no published embedding model has, UNKNOWN when numbers are missing.
    """
    expect(config, "hidden_act", "silu", default="silu")
    expect(config, "attention_bias", False, default=False)

    def read() -> PreNormShape:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return PreNormShape(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            shared_heads=int(config["num_key_value_heads"]),
            head_width=int(config.get("head_dim") or width // heads),
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            normalize=rms_norm,
            activate=silu_,
        )

    return read_numbers("decoder", read)


def read_sights(config: Mapping[str, Any], layers: int) -> list[Sight]:
    """What the tokens of each layer see: everything before them, in windowed layers only so far back.

    `is_causal: false` is how embedding models say that their tokens see what follows, too.

    Raises:
        LoadError: DEPENDENCY for windows that are not causal, which no published model has.
    """
    far = Sight(causal=bool(config.get("is_causal", True)))

    def read() -> list[Sight]:
        mistral = config["model_type"] == "mistral"
        size = config.get("sliding_window", 4096) if mistral or config.get("use_sliding_window", False) else None
        if size is not None:
            expect(config, "is_causal", True, default=True)
        near = far if size is None else Sight(causal=True, window=int(size) - 1)  # a token itself counts
        first = 0 if mistral else int(config.get("max_window_layers", 28))
        rhythm = [SLIDING if at >= first else FULL for at in range(layers)]
        return [near if name == SLIDING else far for name in read_kinds(config, rhythm)]

    return read_numbers("decoder", read)


def read_weights(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], shape: PreNormShape, device: str, dtype: torch.dtype
) -> PreNormWeights:
    """Collect a checkpoint's tensors under their names, with or without `model.`; the language head is not read.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, lambda name: name.removeprefix("model."), device).get
    width, inner, head_width = shape.width, shape.inner, shape.head_width
    queries, shared = shape.heads * head_width, shape.shared_heads * head_width
    rope = read_rope(config, "rope_theta", 10_000.0, head_width)
    query_scale = 1.0 / math.sqrt(head_width)
    has_head_norm, has_bias = config["model_type"] in _WITH_HEAD_NORM, config["model_type"] in _WITH_BIAS

    def norm(name: str) -> torch.Tensor:
        return get(f"{name}.weight", width, dtype=dtype)

    def qkv(name: str, part: str, *columns: int) -> torch.Tensor:
        query = side_by_side(get(f"{name}.q_proj.{part}", queries, *columns), head_width)
        key = side_by_side(get(f"{name}.k_proj.{part}", shared, *columns), head_width)
        query = query if has_head_norm else query * query_scale  # a norm would undo it
        return torch.cat((query, key, get(f"{name}.v_proj.{part}", shared, *columns))).t().contiguous().to(dtype)

    def head_norm(name: str) -> torch.Tensor | None:
        if not has_head_norm:
            return None
        query = side_by_side(get(f"{name}.q_norm.weight", head_width), head_width) * query_scale
        key = side_by_side(get(f"{name}.k_norm.weight", head_width), head_width)
        return torch.cat((query.expand(shape.heads, -1), key.expand(shape.shared_heads, -1))).to(dtype)

    def layer(index: int, sight: Sight) -> Layer:
        prefix = f"layers.{index}"
        gate, up = (get(f"{prefix}.mlp.{part}_proj.weight", inner, width, dtype=dtype) for part in ("gate", "up"))
        return Layer(
            attention_norm=norm(f"{prefix}.input_layernorm"),
            qkv=qkv(f"{prefix}.self_attn", "weight", width),
            qkv_bias=qkv(f"{prefix}.self_attn", "bias") if has_bias else None,
            head_norm=head_norm(f"{prefix}.self_attn"),
            out=get(f"{prefix}.self_attn.o_proj.weight", width, queries, dtype=dtype).t().contiguous(),
            inner_norm=norm(f"{prefix}.post_attention_layernorm"),
            gate_up=torch.cat((gate, up)).t().contiguous(),
            down=get(f"{prefix}.mlp.down_proj.weight", width, inner, dtype=dtype).t().contiguous(),
            rope=rope,
            sight=sight,
        )

    return PreNormWeights(
        words=get("embed_tokens.weight", dtype=dtype),
        embedding_norm=None,
        layers=tuple(layer(at, sight) for at, sight in enumerate(read_sights(config, shape.layers))),
        final_norm=norm("norm"),
    )
