"""What a language model is shown of an image: one vector of its own width for each image token.

PaliGemma (Beyer et al. 2024) looks through SigLIP at a square of one size, Qwen2-VL (Wang et al. 2024) at an image in
its own shape. Tensor names and defaults are those of the published checkpoints, without the names of what is around.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Picture
from sie_server.adapters.shared.attention import FULL_ATTENTION
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.dual import DEFAULTS
from sie_server.adapters.shared.images import read_free_shape, read_preprocessing
from sie_server.adapters.shared.patches import Patches, blocks_of, places_of, shifted
from sie_server.adapters.shared.rope import Rope, rotations, side_by_side
from sie_server.adapters.shared.torch_use import sent
from sie_server.adapters.shared.tower import (
    Affine,
    Block,
    Tower,
    TowerShape,
    read_affine,
    read_blocks,
    read_tower_shape,
)
from sie_server.core.lifecycle import ErrorClass

# What published configurations of Qwen2-VL leave out.
_QWEN: Final[Mapping[str, Any]] = {
    "depth": 32,
    "embed_dim": 1280,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "hidden_act": "quick_gelu",
}
_QWEN_EPS: Final = 1e-6  # written into the model, not into its configuration


class Eye(Protocol):
    """A tower for images and what brings its vectors to the language model. Safe to be used by several threads."""

    def read(self, picture: Picture) -> Array:
        """Pixels [height, width, 3] as uint8.

        Raises:
            UnsupportedInputError: it is no image that can be read.
        """

    def grid(self, pixels: Array) -> tuple[int, int]:
        """Rows and columns of the image tokens of these pixels."""

    def see(self, images: Sequence[Array]) -> torch.Tensor:
        """The vectors of the image tokens of all images, row by row: [tokens, language model's width]."""


class SiglipEye:
    """Squares of one size through SigLIP, its last norm, and one linear layer."""

    def __init__(
        self, vision: Mapping[str, Any], checkpoint: Checkpoint, folder: Path, device: str, dtype: torch.dtype
    ) -> None:
        vision = {**DEFAULTS["siglip"]["vision_config"], **vision}
        self._device = device
        self._preprocessing = read_preprocessing(folder)
        shape = read_tower_shape(vision)
        side, patch = read_numbers("vision model", lambda: (int(vision["image_size"]), int(vision["patch_size"])))
        if self._preprocessing.size != (side, side):
            message = (
                f"the preprocessor makes images of {self._preprocessing.size} pixels, the model reads {side} x {side}"
            )
            raise LoadError(ErrorClass.UNKNOWN, message)
        self.side = side // patch
        self._tower = Tower(shape, read_blocks(checkpoint, "vision_model", shape, dtype), FULL_ATTENTION, device)
        self._patches = Patches(checkpoint, vision, dtype)
        self._norm = read_affine(checkpoint, "vision_model.post_layernorm", dtype)
        self._out = read_affine(checkpoint, "multi_modal_projector.linear", dtype)

    def read(self, picture: Picture) -> Array:
        """See `Eye`."""
        return self._preprocessing.read(picture)

    def grid(self, pixels: Array) -> tuple[int, int]:  # noqa: ARG002 - all are alike
        """See `Eye`."""
        return self.side, self.side

    def see(self, images: Sequence[Array]) -> torch.Tensor:
        """See `Eye`."""
        pixels = sent(np.stack(images), self._device)
        hidden = self._patches.of(shifted(pixels, self._preprocessing.scaling)) + self._patches.positions
        count, length, _ = hidden.shape
        hidden = self._tower.run(hidden.flatten(0, 1), [length] * count)
        return self._out.linear(self._norm.norm(hidden, self._tower.shape.norm_eps))


class QwenEye:
    """Images in their own shape; squares turn by row and column, and four neighbours become one token.

    No image gets more than `most_tokens`: a larger one is read at a lower resolution.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        checkpoint: Checkpoint,
        folder: Path,
        device: str,
        dtype: torch.dtype,
        most_tokens: int,
    ) -> None:
        vision = {**_QWEN, **vision}
        for key, only in (("temporal_patch_size", 2), ("in_channels", 3)):
            expect(vision, key, only, default=only)
        shape = _qwen_shape(vision)
        self._device, self._dtype = device, dtype
        self._patch, self._merged = read_numbers(
            "vision model", lambda: (int(vision["patch_size"]), int(vision["spatial_merge_size"]))
        )
        self._step = self._patch * self._merged
        self._shape = read_free_shape(folder, self._step, most_tokens * self._step**2)
        self._axis_width = shape.width // shape.heads // 2  # one half of a head turns by rows, the other by columns
        turned = vision.get("rope_parameters") or {}
        expect(turned, "rope_type", "axial", default="axial")
        self._rope = Rope(read_numbers("vision model", lambda: float(turned.get("rope_theta", 10_000.0))))
        blocks = tuple(_qwen_block(checkpoint, f"visual.blocks.{at}", shape, dtype) for at in range(shape.layers))
        self._tower = Tower(shape, blocks, FULL_ATTENTION, device)
        # A still image is shown twice, as two moments; what both see of it adds up.
        moments = checkpoint.get("visual.patch_embed.proj.weight", shape.width, 3, 2, self._patch, self._patch)
        self._project = moments.sum(2).flatten(1).to(dtype)
        self._norm = read_affine(checkpoint, "visual.merger.ln_q", dtype)
        self._merge = read_affine(checkpoint, "visual.merger.mlp.0", dtype)
        self._out = read_affine(checkpoint, "visual.merger.mlp.2", dtype)

    def read(self, picture: Picture) -> Array:
        """See `Eye`."""
        return self._shape.read(picture)

    def grid(self, pixels: Array) -> tuple[int, int]:
        """See `Eye`."""
        return pixels.shape[0] // self._step, pixels.shape[1] // self._step

    def see(self, images: Sequence[Array]) -> torch.Tensor:
        """See `Eye`."""
        scaled = [shifted(sent(each, self._device), self._shape.scaling) for each in images]
        squares = [blocks_of(each.contiguous(), self._patch, self._merged) for each in scaled]
        sizes = [(each.shape[-2] // self._patch, each.shape[-1] // self._patch) for each in scaled]
        places = torch.cat([places_of(*size, self._merged, self._device) for size in sizes])
        by = torch.cat([rotations(axis, self._rope, self._axis_width) for axis in places.unbind(1)], dim=1)
        hidden = functional.linear(torch.cat(squares).to(self._dtype), self._project)
        hidden = self._tower.run(hidden, [len(each) for each in squares], by)
        hidden = self._norm.norm(hidden, _QWEN_EPS).view(-1, self._merged**2 * self._tower.shape.width)
        return self._out.linear(functional.gelu(self._merge.linear(hidden)))


def _qwen_shape(vision: Mapping[str, Any]) -> TowerShape:
    def numbers() -> dict[str, Any]:
        width = int(vision["embed_dim"])
        return {
            "num_hidden_layers": vision["depth"],
            "hidden_size": width,
            "num_attention_heads": vision["num_heads"],
            "intermediate_size": int(width * vision["mlp_ratio"]),
            "layer_norm_eps": _QWEN_EPS,
            "hidden_act": vision["hidden_act"],
        }

    return read_tower_shape(read_numbers("vision model", numbers))


def _qwen_block(checkpoint: Checkpoint, name: str, shape: TowerShape, dtype: torch.dtype) -> Block:
    head_width = shape.width // shape.heads

    def rows(kind: str, *columns: int) -> torch.Tensor:
        query, key, value = checkpoint.get(f"{name}.attn.qkv.{kind}", 3 * shape.width, *columns).chunk(3)
        query = side_by_side(query, head_width) / math.sqrt(head_width)
        return torch.cat((query, side_by_side(key, head_width), value)).to(dtype)

    return Block(
        attention_norm=read_affine(checkpoint, f"{name}.norm1", dtype),
        qkv=Affine(rows("weight", shape.width).t().contiguous(), rows("bias")),
        out=read_affine(checkpoint, f"{name}.attn.proj", dtype),
        inner_norm=read_affine(checkpoint, f"{name}.norm2", dtype),
        up=read_affine(checkpoint, f"{name}.mlp.fc1", dtype),
        down=read_affine(checkpoint, f"{name}.mlp.fc2", dtype),
    )
