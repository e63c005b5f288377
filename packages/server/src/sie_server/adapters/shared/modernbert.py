"""ModernBERT checkpoints as the pre-norm encoder wants them."""

import math
from collections.abc import Mapping
from typing import Any, Final

import torch

from sie_server.adapters.shared.attention import FULL_ATTENTION, AttentionPattern
from sie_server.adapters.shared.checkpoint import FULL, SLIDING, Checkpoint, expect, read_kinds, read_numbers
from sie_server.adapters.shared.linear import gelu_
from sie_server.adapters.shared.lora import Place
from sie_server.adapters.shared.prenorm import Layer, PreNormShape, PreNormWeights, layer_norm
from sie_server.adapters.shared.rope import Rope, read_rope, side_by_side

_FUSED: Final = "attn.Wqkv."


def read_shape(config: Mapping[str, Any]) -> PreNormShape:
    """The shape of a ModernBERT `config.json`.

    Raises:
        LoadError: DEPENDENCY for a variety that no published embedding model has, UNKNOWN when numbers are missing.
    """
    expect(config, "hidden_activation", "gelu", default="gelu")
    for bias in ("attention_bias", "mlp_bias", "norm_bias"):
        expect(config, bias, False, default=False)

    def read() -> PreNormShape:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return PreNormShape(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            shared_heads=heads,
            head_width=width // heads,
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            norm_eps=float(config.get("norm_eps", 1e-5)),
            normalize=layer_norm,
            activate=gelu_,
        )

    return read_numbers("ModernBERT", read)


def read_patterns(config: Mapping[str, Any], shape: PreNormShape) -> list[tuple[Rope, AttentionPattern]]:
    """For each layer, how its positions turn and what its tokens see."""

    def read() -> list[tuple[Rope, AttentionPattern]]:
        window, width = int(config.get("local_attention", 128)) // 2, shape.head_width
        kinds = {
            FULL: (read_rope(config, "global_rope_theta", 160_000.0, width, FULL), FULL_ATTENTION),
            SLIDING: (read_rope(config, "local_rope_theta", 10_000.0, width, SLIDING), AttentionPattern(window=window)),
        }
        every = int(config.get("global_attn_every_n_layers", 3))
        rhythm = [SLIDING if at % every else FULL for at in range(shape.layers)]
        return [kinds[name] for name in read_kinds(config, rhythm)]

    return read_numbers("ModernBERT", read)


def read_weights(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], shape: PreNormShape, device: str, dtype: torch.dtype
) -> PreNormWeights:
    """Collect a checkpoint's tensors under their names, with or without `model.`.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, _canonical, device).get
    width, inner = shape.width, shape.inner
    query_scale = 1.0 / math.sqrt(shape.head_width)

    def matrix(name: str, rows: int, columns: int) -> torch.Tensor:
        return get(f"{name}.weight", rows, columns, dtype=dtype).t().contiguous()

    def norm(name: str) -> torch.Tensor:
        return get(f"{name}.weight", width, dtype=dtype)

    def qkv(name: str) -> torch.Tensor:
        query, key, value = get(f"{name}.weight", 3 * width, width).chunk(3)
        parts = (side_by_side(query, shape.head_width) * query_scale, side_by_side(key, shape.head_width), value)
        return torch.cat(parts).t().contiguous().to(dtype)

    def layer(index: int, rope: Rope, pattern: AttentionPattern) -> Layer:
        prefix = f"layers.{index}"
        return Layer(
            attention_norm=norm(f"{prefix}.attn_norm") if index else None,  # the embeddings are normalised already
            qkv=qkv(f"{prefix}.attn.Wqkv"),
            qkv_bias=None,
            head_norm=None,
            out=matrix(f"{prefix}.attn.Wo", width, width),
            inner_norm=norm(f"{prefix}.mlp_norm"),
            gate_up=matrix(f"{prefix}.mlp.Wi", 2 * inner, width),
            down=matrix(f"{prefix}.mlp.Wo", width, inner),
            rope=rope,
            pattern=pattern,
        )

    return PreNormWeights(
        words=get("embeddings.tok_embeddings.weight", dtype=dtype),
        embedding_norm=norm("embeddings.norm"),
        layers=tuple(layer(at, *kind) for at, kind in enumerate(read_patterns(config, shape))),
        final_norm=norm("final_norm"),
    )


def split(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names of `places`: what makes queries, keys and values is cut in three."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if _FUSED in name:
            cut = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            found |= {_canonical(name.replace(_FUSED, f"{_FUSED}{part}.")): own for part, own in cut}
        else:
            found[_canonical(name)] = tensor
    return found


def places(shape: PreNormShape) -> dict[str, Place]:
    """Where the linear layers of the blocks stand, by the names that `split` gives them."""
    width, inner, scale = shape.width, shape.inner, 1.0 / math.sqrt(shape.head_width)

    def turned(rows: torch.Tensor) -> torch.Tensor:
        return side_by_side(rows, shape.head_width)

    def block(at: int) -> dict[str, Place]:
        return {
            "attn.Wqkv.query": Place(at, "qkv", 0, width, width, lambda rows: turned(rows) * scale),
            "attn.Wqkv.key": Place(at, "qkv", width, width, width, turned),
            "attn.Wqkv.value": Place(at, "qkv", 2 * width, width, width),
            "attn.Wo": Place(at, "out", 0, width, width),
            "mlp.Wi": Place(at, "gate_up", 0, 2 * inner, width),
            "mlp.Wo": Place(at, "down", 0, width, inner),
        }

    return {f"layers.{at}.{name}": place for at in range(shape.layers) for name, place in block(at).items()}


def _canonical(name: str) -> str:
    return name.removeprefix("model.")
