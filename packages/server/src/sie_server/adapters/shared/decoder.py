"""Decoder checkpoints as the pre-norm encoder wants them: what sets one family apart from another is in `TRAITS`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch

from sie_server.adapters.shared.attention import AttentionPattern
from sie_server.adapters.shared.checkpoint import FULL, SLIDING, Checkpoint, expect, read_kinds, read_numbers
from sie_server.adapters.shared.linear import InPlace, gelu_tanh_, silu_
from sie_server.adapters.shared.lora import Place
from sie_server.adapters.shared.prenorm import Layer, PreNormShape, PreNormWeights, rms_norm
from sie_server.adapters.shared.rope import Rope, read_rope, side_by_side


@dataclass(frozen=True, slots=True)
class Traits:
    """What a family of decoders has of its own.

    `activation` is the key of its configuration, the name that must stand there, and what it means. `bare_norms` store
    what their weights are above 1. `long_words`: embeddings go in longer than they are stored. `inner_norm` and
    the two of `after` are names of norms: before the inner layer, and of what comes out of attention and of the inner
    layer. `is_causal`: its tokens see what is before them only, unless its configuration says otherwise.
    """

    head_norm: bool = False
    bias: bool = False
    activation: tuple[str, str, InPlace] = ("hidden_act", "silu", silu_)
    bare_norms: bool = False
    long_words: bool = False
    inner_norm: str = "post_attention_layernorm"
    after: tuple[str, str] | None = None
    theta: float = 10_000.0
    is_causal: bool = True


TRAITS: Final[Mapping[str, Traits]] = MappingProxyType(
    {
        "gemma": Traits(activation=("hidden_act", "gelu_pytorch_tanh", gelu_tanh_), bare_norms=True, long_words=True),
        "gemma3_text": Traits(
            head_norm=True,
            activation=("hidden_activation", "gelu_pytorch_tanh", gelu_tanh_),
            bare_norms=True,
            long_words=True,
            inner_norm="pre_feedforward_layernorm",
            after=("post_attention_layernorm", "post_feedforward_layernorm"),
            theta=1_000_000.0,
        ),
        "llama": Traits(),
        "llama_bidirec": Traits(is_causal=False),
        "mistral": Traits(),
        "qwen2": Traits(bias=True),
        "qwen2_5_vl_text": Traits(bias=True, theta=1_000_000.0),
        "qwen2_vl_text": Traits(bias=True, theta=1_000_000.0),
        "qwen3": Traits(head_norm=True),
    }
)


def read_shape(config: Mapping[str, Any]) -> PreNormShape:
    """The shape of a `config.json` of one of these families.

    Raises:
        LoadError: DEPENDENCY for a variety that no published embedding model has, UNKNOWN when numbers are missing.
    """
    expect(config, "model_type", *TRAITS)
    key, name, activate = TRAITS[config["model_type"]].activation
    expect(config, key, name, default=name)
    for bias in ("attention_bias", "mlp_bias"):
        expect(config, bias, False, default=False)
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        expect(config, cap, None)

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
            activate=activate,
        )

    return read_numbers("decoder", read)


def read_patterns(config: Mapping[str, Any], shape: PreNormShape) -> list[tuple[Rope, AttentionPattern]]:
    """For each layer, how its positions turn and what its tokens see.

    That is everything before them, in windowed layers only so far back. `is_causal: false` is how embedding models say
    that their tokens see what follows, too; Gemma has a key of its own.

    Raises:
        LoadError: DEPENDENCY for windows that are not causal, but for Gemma's, and for rescaled positions.
    """
    return read_numbers("decoder", lambda: (_gemma_patterns if _is_gemma(config) else _patterns)(config, shape))


def _patterns(config: Mapping[str, Any], shape: PreNormShape) -> list[tuple[Rope, AttentionPattern]]:
    traits = TRAITS[config["model_type"]]
    far = AttentionPattern(causal=bool(config.get("is_causal", traits.is_causal)))
    rope = read_rope(config, "rope_theta", traits.theta, shape.head_width)
    mistral = config["model_type"] == "mistral"
    size = config.get("sliding_window", 4096) if mistral or config.get("use_sliding_window", False) else None
    if size is not None:
        expect(config, "is_causal", True, default=True)
    near = far if size is None else AttentionPattern(causal=True, window=int(size) - 1)  # a token itself counts
    first = 0 if mistral else int(config.get("max_window_layers", 28))
    rhythm = [SLIDING if at >= first else FULL for at in range(shape.layers)]
    return [(rope, near if name == SLIDING else far) for name in read_kinds(config, rhythm)]


def _gemma_patterns(config: Mapping[str, Any], shape: PreNormShape) -> list[tuple[Rope, AttentionPattern]]:
    causal, size = not config.get("use_bidirectional_attention", False), int(config["sliding_window"])
    # Seen from the middle, a window reaches half its size to each side.
    near = AttentionPattern(causal=True, window=size - 1) if causal else AttentionPattern(window=size // 2)
    unscaled = {**config, "rope_scaling": None}  # where it stands at the top, it is of layers that see everything
    kinds = {
        FULL: (read_rope(config, "rope_theta", 1_000_000.0, shape.head_width, FULL), AttentionPattern(causal=causal)),
        SLIDING: (read_rope(unscaled, "rope_local_base_freq", 10_000.0, shape.head_width, SLIDING), near),
    }
    every = int(config.get("sliding_window_pattern", 6))
    rhythm = [SLIDING if (at + 1) % every else FULL for at in range(shape.layers)]
    return [kinds[name] for name in read_kinds(config, rhythm)]


def _is_gemma(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] == "gemma3_text")


def read_weights(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], shape: PreNormShape, device: str, dtype: torch.dtype
) -> PreNormWeights:
    """Collect a checkpoint's tensors under their names, with or without `model.`; the language head is not read.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, canonical, device).get
    width, inner, head_width = shape.width, shape.inner, shape.head_width
    queries, shared = shape.heads * head_width, shape.shared_heads * head_width
    traits = TRAITS[config["model_type"]]
    query_scale = _query_scale(config, shape)
    above = 1.0 if traits.bare_norms else 0.0

    def norm(name: str) -> torch.Tensor:
        return (get(f"{name}.weight", width) + above).to(dtype)

    def qkv(name: str, part: str, *columns: int) -> torch.Tensor:
        query = side_by_side(get(f"{name}.q_proj.{part}", queries, *columns), head_width)
        key = side_by_side(get(f"{name}.k_proj.{part}", shared, *columns), head_width)
        query = query if traits.head_norm else query * query_scale  # a norm would undo it
        return torch.cat((query, key, get(f"{name}.v_proj.{part}", shared, *columns))).t().contiguous().to(dtype)

    def head_norm(name: str) -> torch.Tensor | None:
        if not traits.head_norm:
            return None
        query = side_by_side(get(f"{name}.q_norm.weight", head_width) + above, head_width) * query_scale
        key = side_by_side(get(f"{name}.k_norm.weight", head_width) + above, head_width)
        return torch.cat((query.expand(shape.heads, -1), key.expand(shape.shared_heads, -1))).to(dtype)

    def layer(index: int, rope: Rope, pattern: AttentionPattern) -> Layer:
        prefix = f"layers.{index}"
        names = zip(("attention_after", "inner_after"), traits.after or (), strict=False)
        after = {key: norm(f"{prefix}.{name}") for key, name in names}
        gate, up = (get(f"{prefix}.mlp.{part}_proj.weight", inner, width, dtype=dtype) for part in ("gate", "up"))
        return Layer(
            attention_norm=norm(f"{prefix}.input_layernorm"),
            qkv=qkv(f"{prefix}.self_attn", "weight", width),
            qkv_bias=qkv(f"{prefix}.self_attn", "bias") if traits.bias else None,
            head_norm=head_norm(f"{prefix}.self_attn"),
            out=get(f"{prefix}.self_attn.o_proj.weight", width, queries, dtype=dtype).t().contiguous(),
            inner_norm=norm(f"{prefix}.{traits.inner_norm}"),
            gate_up=torch.cat((gate, up)).t().contiguous(),
            down=get(f"{prefix}.mlp.down_proj.weight", width, inner, dtype=dtype).t().contiguous(),
            rope=rope,
            pattern=pattern,
            **after,
        )

    return PreNormWeights(
        words=_words(get("embed_tokens.weight", dtype=dtype), config),
        embedding_norm=None,
        layers=tuple(layer(at, *kind) for at, kind in enumerate(read_patterns(config, shape))),
        final_norm=norm("norm"),
    )


def canonical(name: str) -> str:
    """A tensor's name without `model.`."""
    return name.removeprefix("model.")


def places(config: Mapping[str, Any], shape: PreNormShape) -> dict[str, Place]:
    """Where the linear layers of the blocks stand, by their names in a checkpoint."""
    width, inner, head_width = shape.width, shape.inner, shape.head_width
    queries, shared = shape.heads * head_width, shape.shared_heads * head_width
    scale = 1.0 if TRAITS[config["model_type"]].head_norm else _query_scale(config, shape)

    def block(at: int) -> dict[str, Place]:
        return {
            "self_attn.q_proj": Place(
                at, "qkv", 0, queries, width, lambda rows: side_by_side(rows, head_width) * scale
            ),
            "self_attn.k_proj": Place(at, "qkv", queries, shared, width, lambda rows: side_by_side(rows, head_width)),
            "self_attn.v_proj": Place(at, "qkv", queries + shared, shared, width),
            "self_attn.o_proj": Place(at, "out", 0, width, queries),
            "mlp.gate_proj": Place(at, "gate_up", 0, inner, width),
            "mlp.up_proj": Place(at, "gate_up", inner, inner, width),
            "mlp.down_proj": Place(at, "down", 0, width, inner),
        }

    return {f"layers.{at}.{name}": place for at in range(shape.layers) for name, place in block(at).items()}


def _query_scale(config: Mapping[str, Any], shape: PreNormShape) -> float:
    return 1.0 / math.sqrt(config.get("query_pre_attn_scalar") or shape.head_width)


def _words(words: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    """The embeddings as they go in; Gemma makes them longer, by a factor that it rounds to their precision."""
    if not TRAITS[config["model_type"]].long_words:
        return words
    return words * torch.tensor(math.sqrt(words.shape[1])).to(words.dtype)
