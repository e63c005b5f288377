"""Models with a tower for texts and a tower for images, both ending in one vector space: CLIP and SigLIP.

CLIP: Radford et al. 2021, SigLIP: Zhai et al. 2023; tensor names and defaults are those of the published checkpoints.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.attention import FULL_ATTENTION, AttentionPattern
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.patches import Patches
from sie_server.adapters.shared.torch_use import to_device
from sie_server.adapters.shared.tower import ACTIVATIONS, Affine, Tower, read_affine, read_blocks, read_tower_shape
from sie_server.adapters.shared.varlen import pack

_COMMON: Final = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_CLIP: Final = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP: Final = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
# What published configurations leave out.
DEFAULTS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        "clip": {
            "text_config": {
                **_COMMON,
                **_CLIP,
                "hidden_size": 512,
                "num_attention_heads": 8,
                "intermediate_size": 2048,
                "max_position_embeddings": 77,
            },
            "vision_config": {**_COMMON, **_CLIP, "image_size": 224, "patch_size": 32},
        },
        "siglip": {
            "text_config": {**_COMMON, **_SIGLIP, "max_position_embeddings": 64},
            "vision_config": {**_COMMON, **_SIGLIP, "image_size": 224, "patch_size": 16},
        },
        "owlv2": {
            "text_config": {
                **_COMMON,
                **_CLIP,
                "hidden_size": 512,
                "num_attention_heads": 8,
                "intermediate_size": 2048,
                "max_position_embeddings": 16,
            },
            "vision_config": {**_COMMON, **_CLIP, "image_size": 768, "patch_size": 16},
        },
    }
)
# Published CLIP configurations give 2 as the end token, which it is not: the end token has the highest id of a text.
HIGHEST_ID: Final = 2


class DualEncoder(Protocol):
    """Both towers. Safe to be used by several threads at once."""

    @property
    def width(self) -> int:
        """Components of a vector."""

    def texts(self, sequences: Sequence[Array]) -> torch.Tensor:
        """Int64 token ids of each text to [texts, width]."""

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shifted and scaled pixels [images, 3, height, width] to [images, width]."""


class Clip:
    """A causal text tower read at its end token; an image tower read at a token of its own."""

    def __init__(self, config: Mapping[str, Any], checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> None:
        text, vision = (DEFAULTS["clip"][part] | config.get(part, {}) for part in ("text_config", "vision_config"))
        self._end = int(text.get("eos_token_id", HIGHEST_ID))
        self._text = _tower(checkpoint, "text_model", text, AttentionPattern(causal=True), device, dtype)
        self._vision = _tower(checkpoint, "vision_model", vision, FULL_ATTENTION, device, dtype)
        self._words = _TextEmbeddings(checkpoint, device, dtype)
        self._patches = Patches(checkpoint, vision, dtype)
        self._own_token = checkpoint.get("vision_model.embeddings.class_embedding", dtype=dtype)
        self._first_norm = read_affine(checkpoint, "vision_model.pre_layrnorm", dtype)
        self._text_norm = read_affine(checkpoint, "text_model.final_layer_norm", dtype)
        self._vision_norm = read_affine(checkpoint, "vision_model.post_layernorm", dtype)
        self._from_text = checkpoint.get("text_projection.weight", dtype=dtype)
        self._from_vision = checkpoint.get("visual_projection.weight", dtype=dtype)

    @property
    def width(self) -> int:
        """See `DualEncoder`."""
        return len(self._from_text)

    def texts(self, sequences: Sequence[Array]) -> torch.Tensor:
        """See `DualEncoder`."""
        hidden, lengths = self._words.of(sequences)
        hidden = self._text.run(hidden, lengths)
        ends = [ids.argmax() if self._end == HIGHEST_ID else (ids == self._end).argmax() for ids in sequences]
        starts = np.cumsum(lengths) - lengths
        at = to_device(starts + np.asarray(ends), hidden.device)
        return functional.linear(self._text_norm.norm(hidden[at], self._text.shape.norm_eps), self._from_text)

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `DualEncoder`."""
        hidden = self._seen(pixels)
        return functional.linear(self._vision_norm.norm(hidden[:, 0], self._vision.shape.norm_eps), self._from_vision)

    def states(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels as those of `images` to [images, 1 + patches, width of the image tower], the image's own token first.

        For models that look at the patches themselves; nothing is projected.
        """
        return self._vision_norm.norm(self._seen(pixels), self._vision.shape.norm_eps)

    def _seen(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self._patches.of(pixels)
        hidden = torch.cat([self._own_token.expand(len(patches), 1, -1), patches], dim=1) + self._patches.positions
        count, length, width = hidden.shape
        hidden = self._first_norm.norm(hidden.flatten(0, 1), self._vision.shape.norm_eps)
        return self._vision.run(hidden, [length] * count).view(count, length, width)


class Siglip:
    """A text tower that sees its padding and is read at its last token; an image tower pooled by attention."""

    def __init__(self, config: Mapping[str, Any], checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> None:
        text, vision = (DEFAULTS["siglip"][part] | config.get(part, {}) for part in ("text_config", "vision_config"))
        self._text = _tower(checkpoint, "text_model", text, FULL_ATTENTION, device, dtype)
        self._vision = _tower(checkpoint, "vision_model", vision, FULL_ATTENTION, device, dtype)
        self._words = _TextEmbeddings(checkpoint, device, dtype)
        self._patches = Patches(checkpoint, vision, dtype)
        self._text_norm = read_affine(checkpoint, "text_model.final_layer_norm", dtype)
        self._vision_norm = read_affine(checkpoint, "vision_model.post_layernorm", dtype)
        self._from_text = read_affine(checkpoint, "text_model.head", dtype)
        self._pool = _AttentionPool(checkpoint, self._vision, dtype)

    @property
    def width(self) -> int:
        """See `DualEncoder`."""
        return len(self._from_text.bias)

    def texts(self, sequences: Sequence[Array]) -> torch.Tensor:
        """See `DualEncoder`."""
        hidden, lengths = self._words.of(sequences)
        hidden = self._text.run(hidden, lengths)
        last = to_device(np.cumsum(lengths) - 1, hidden.device)
        return self._from_text.linear(self._text_norm.norm(hidden[last], self._text.shape.norm_eps))

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `DualEncoder`."""
        hidden = self._patches.of(pixels) + self._patches.positions
        count, length, width = hidden.shape
        hidden = self._vision.run(hidden.flatten(0, 1), [length] * count)
        hidden = self._vision_norm.norm(hidden, self._vision.shape.norm_eps)
        return self._pool.of(hidden.view(count, length, width))


class _TextEmbeddings:
    def __init__(self, checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> None:
        name = "text_model.embeddings"
        self._words = checkpoint.get(f"{name}.token_embedding.weight", dtype=dtype)
        self._positions = checkpoint.get(f"{name}.position_embedding.weight", dtype=dtype)
        self._device = device

    def of(self, sequences: Sequence[Array]) -> tuple[torch.Tensor, list[int]]:
        packed = pack(sequences, self._device)
        hidden = functional.embedding(packed.ids, self._words)
        return hidden.add_(functional.embedding(packed.positions, self._positions)), packed.lengths


class _AttentionPool:
    """One learned query over all patches, then an MLP."""

    def __init__(self, checkpoint: Checkpoint, tower: Tower, dtype: torch.dtype) -> None:
        name, width = "vision_model.head", tower.shape.width
        weight = checkpoint.get(f"{name}.attention.in_proj_weight", 3 * width, width, dtype=dtype)
        bias = checkpoint.get(f"{name}.attention.in_proj_bias", 3 * width, dtype=dtype)
        probe = checkpoint.get(f"{name}.probe", 1, 1, width, dtype=dtype)
        self._heads = tower.shape.heads
        self._query = self._split(functional.linear(probe, weight[:width], bias[:width]))
        self._key_value = Affine(weight[width:].t().contiguous(), bias[width:])
        self._out = read_affine(checkpoint, f"{name}.attention.out_proj", dtype)
        self._norm = read_affine(checkpoint, f"{name}.layernorm", dtype)
        self._up = read_affine(checkpoint, f"{name}.mlp.fc1", dtype)
        self._down = read_affine(checkpoint, f"{name}.mlp.fc2", dtype)
        self._eps = tower.shape.norm_eps
        self._activate = ACTIVATIONS[tower.shape.activation]

    def of(self, hidden: torch.Tensor) -> torch.Tensor:
        """[images, patches, width] to [images, width]."""
        keys_values = self._key_value.linear(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        key, value = (self._split(part.contiguous()) for part in keys_values.chunk(2, dim=-1))
        query = self._query.expand(len(hidden), -1, -1, -1)
        pooled = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1)
        pooled = self._out.linear(pooled)
        inner = self._activate(self._up.linear(self._norm.norm(pooled, self._eps)))
        return pooled + self._down.linear(inner)

    def _split(self, part: torch.Tensor) -> torch.Tensor:
        """[images, tokens, width] to [images, heads, tokens, head width]."""
        return part.view(*part.shape[:2], self._heads, -1).transpose(1, 2)


def _tower(
    checkpoint: Checkpoint,
    prefix: str,
    config: Mapping[str, Any],
    pattern: AttentionPattern,
    device: str,
    dtype: torch.dtype,
) -> Tower:
    shape = read_tower_shape(config)
    return Tower(shape, read_blocks(checkpoint, prefix, shape, dtype), pattern, device)
