"""How Qwen2-VL (Wang et al. 2024) and Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923) look at an image in its own shape.

The second one normalises by the root mean square, gates its inner layers, and looks through windows in most blocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.base import Picture
from sie_server.adapters.shared.attention import FULL_ATTENTION
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.images import read_free_shape
from sie_server.adapters.shared.page_prompts import Layout, PageImage
from sie_server.adapters.shared.patches import blocks_of, places_of, shifted, windows_of
from sie_server.adapters.shared.rope import Rope, rotations, side_by_side
from sie_server.adapters.shared.torch_use import to_device
from sie_server.adapters.shared.tower import (
    Affine,
    Block,
    Tower,
    TowerShape,
    read_affine,
    read_root,
    read_tower_shape,
)

_EPS: Final = 1e-6  # written into the models, not into their configuration


@dataclass(frozen=True, slots=True)
class Release:
    """What sets one release apart: what its published configurations leave out, and whether it looks through windows.

    `width` is the key of the tower's own width.
    """

    defaults: Mapping[str, Any]
    width: str
    is_windowed: bool


QWEN2: Final = Release(
    MappingProxyType(
        {
            "depth": 32,
            "embed_dim": 1280,
            "num_heads": 16,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "hidden_act": "quick_gelu",
        }
    ),
    "embed_dim",
    is_windowed=False,
)
QWEN2_5: Final = Release(
    MappingProxyType(
        {
            "depth": 32,
            "hidden_size": 3584,
            "num_heads": 16,
            "intermediate_size": 3420,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "hidden_act": "silu",
            "window_size": 112,
            "fullatt_block_indexes": (7, 15, 23, 31),
        }
    ),
    "hidden_size",
    is_windowed=True,
)


@dataclass(frozen=True, slots=True)
class _Order:
    """Blocks of squares in the order of windows: int64 [blocks] on the device, and the squares of each window."""

    places: torch.Tensor
    windows: list[int]


class QwenVisionEncoder:
    """Images in their own shape; squares turn by row and column, and four neighbours become one token.

    No image gets more than `most_tokens`: a larger one is read at a lower resolution.
    """

    largest = None

    def __init__(
        self,
        release: Release,
        vision: Mapping[str, Any],
        checkpoint: Checkpoint,
        folder: Path,
        device: str,
        dtype: torch.dtype,
        most_tokens: int,
    ) -> None:
        vision = {**release.defaults, **vision}
        for key, only in (("temporal_patch_size", 2), ("in_channels", 3)):
            expect(vision, key, only, default=only)
        shape = _read_shape(release, vision)
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
        self._window, far = _read_windows(release, vision, shape, self._step)
        blocks = tuple(_read_block(checkpoint, at, shape, dtype, is_near=at not in far) for at in range(shape.layers))
        self._tower = Tower(shape, blocks, FULL_ATTENTION, device)
        # A still image is shown twice, as two moments; what both see of it adds up.
        moments = checkpoint.get("visual.patch_embed.proj.weight", shape.width, 3, 2, self._patch, self._patch)
        self._project = moments.sum(2).flatten(1).to(dtype)
        self._norm = (read_root if shape.gated else read_affine)(checkpoint, "visual.merger.ln_q", dtype)
        self._merge = read_affine(checkpoint, "visual.merger.mlp.0", dtype)
        self._out = read_affine(checkpoint, "visual.merger.mlp.2", dtype)

    def read(self, picture: Picture) -> PageImage:
        """See `VisionEncoder`."""
        pixels = self._shape.read(picture)
        return PageImage(pixels, Layout((pixels.shape[0] // self._step, pixels.shape[1] // self._step)))

    def encode(self, images: Sequence[Array]) -> torch.Tensor:
        """See `VisionEncoder`."""
        scaled = [shifted(to_device(each, self._device), self._shape.scaling) for each in images]
        squares = [blocks_of(each.contiguous(), self._patch, self._merged) for each in scaled]
        sizes = [(each.shape[-2] // self._patch, each.shape[-1] // self._patch) for each in scaled]
        places = torch.cat([places_of(*size, self._merged, self._device) for size in sizes])
        by = torch.cat([rotations(axis, self._rope, self._axis_width) for axis in places.unbind(1)], dim=1)
        hidden = functional.linear(torch.cat(squares).to(self._dtype), self._project)
        lengths = [len(each) for each in squares]
        if self._window is None:
            return self._merged_of(self._tower.run(hidden, lengths, by))
        order = self._order(sizes, self._window)
        hidden, by = (
            each.view(-1, self._merged**2, each.shape[1])[order.places].flatten(0, 1) for each in (hidden, by)
        )
        tokens = self._merged_of(self._tower.run(hidden, lengths, by, order.windows))
        return torch.empty_like(tokens).index_copy_(0, order.places, tokens)

    def _merged_of(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self._norm.norm(hidden, _EPS).view(-1, self._merged**2 * self._tower.shape.width)
        return self._out.linear(functional.gelu(self._merge.linear(hidden)))

    def _order(self, sizes: Sequence[tuple[int, int]], side: int) -> _Order:
        grids = [(rows // self._merged, columns // self._merged) for rows, columns in sizes]
        starts = np.cumsum([0, *(rows * columns for rows, columns in grids)])
        found = [windows_of(*grid, side) for grid in grids]
        places = np.concatenate([start + order for start, (order, _) in zip(starts, found, strict=False)])
        return _Order(
            to_device(places, self._device), [count * self._merged**2 for _, counts in found for count in counts]
        )


def _read_shape(release: Release, vision: Mapping[str, Any]) -> TowerShape:
    def numbers() -> dict[str, Any]:
        width = int(vision[release.width])
        return {
            "num_hidden_layers": vision["depth"],
            "hidden_size": width,
            "num_attention_heads": vision["num_heads"],
            "intermediate_size": vision["intermediate_size"] if release.is_windowed else width * vision["mlp_ratio"],
            "layer_norm_eps": _EPS,
            "hidden_act": vision["hidden_act"],
        }

    return replace(read_tower_shape(read_numbers("vision model", numbers)), gated=release.is_windowed)


def _read_windows(
    release: Release, vision: Mapping[str, Any], shape: TowerShape, step: int
) -> tuple[int | None, frozenset[int]]:
    """Rows and columns of a window, in tokens of `step` pixels, and the blocks that see beyond it; None: all do."""
    if not release.is_windowed:
        return None, frozenset(range(shape.layers))
    return read_numbers(
        "vision model",
        lambda: (max(1, int(vision["window_size"]) // step), frozenset(map(int, vision["fullatt_block_indexes"]))),
    )


def _read_block(checkpoint: Checkpoint, at: int, shape: TowerShape, dtype: torch.dtype, *, is_near: bool) -> Block:
    name, head_width = f"visual.blocks.{at}", shape.width // shape.heads
    read_norm = read_root if shape.gated else read_affine

    def rows(kind: str, *columns: int) -> torch.Tensor:
        query, key, value = checkpoint.get(f"{name}.attn.qkv.{kind}", 3 * shape.width, *columns).chunk(3)
        query = side_by_side(query, head_width) / math.sqrt(head_width)
        return torch.cat((query, side_by_side(key, head_width), value)).to(dtype)

    return Block(
        attention_norm=read_norm(checkpoint, f"{name}.norm1", dtype),
        qkv=Affine(rows("weight", shape.width).t().contiguous(), rows("bias")),
        out=read_affine(checkpoint, f"{name}.attn.proj", dtype),
        inner_norm=read_norm(checkpoint, f"{name}.norm2", dtype),
        up=_read_up(checkpoint, name, shape, dtype),
        down=read_affine(checkpoint, f"{name}.mlp.{'down_proj' if shape.gated else 'fc2'}", dtype),
        is_near=is_near,
    )


def _read_up(checkpoint: Checkpoint, name: str, shape: TowerShape, dtype: torch.dtype) -> Affine:
    if not shape.gated:
        return read_affine(checkpoint, f"{name}.mlp.fc1", dtype)
    parts = [read_affine(checkpoint, f"{name}.mlp.{part}_proj", dtype) for part in ("gate", "up")]
    return Affine(torch.cat([each.weight for each in parts], dim=1), torch.cat([each.bias for each in parts]))
