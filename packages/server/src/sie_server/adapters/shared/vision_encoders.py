"""What a language model is shown of an image: one vector of its own width for each image token.

PaliGemma (Beyer et al. 2024) looks through SigLIP at a square of one size, Idefics3 (Laurençon et al. 2024) at several
of them. Tensor names and defaults are those of the published checkpoints, without the names of what is around.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Picture
from sie_server.adapters.shared.attention import FULL_ATTENTION
from sie_server.adapters.shared.checkpoint import Checkpoint, read_numbers
from sie_server.adapters.shared.dual_encoder import DEFAULTS
from sie_server.adapters.shared.images import Scaling, read_preprocessing
from sie_server.adapters.shared.page_prompts import Layout, PageImage
from sie_server.adapters.shared.patches import Patches, shifted, shuffled
from sie_server.adapters.shared.tiles import read_tiling
from sie_server.adapters.shared.torch_use import to_device
from sie_server.adapters.shared.tower import Tower, read_affine, read_blocks, read_tower_shape
from sie_server.core.lifecycle import ErrorClass

# What published configurations of Idefics3 leave out.
_IDEFICS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }
)


class VisionEncoder(Protocol):
    """A tower for images and what brings its vectors to the language model. Safe to be used by several threads."""

    @property
    def largest(self) -> Layout | None:
        """Of the image with the most vectors; None: no image has more than there is room for."""

    def read(self, picture: Picture) -> PageImage:
        """Its pixels.

        Raises:
            UnsupportedInputError: it is no image that can be read.
        """

    def encode(self, images: Sequence[Array]) -> torch.Tensor:
        """The vectors of the image tokens of all images, row by row: [tokens, language model's width]."""


class SiglipEncoder:
    """Squares of one size through SigLIP, its last norm, and one linear layer."""

    def __init__(
        self, vision: Mapping[str, Any], checkpoint: Checkpoint, folder: Path, device: str, dtype: torch.dtype
    ) -> None:
        self._preprocessing = read_preprocessing(folder)
        vision = {**DEFAULTS["siglip"]["vision_config"], **vision}
        self._squares = _Squares(vision, self._preprocessing.size, checkpoint, device, dtype)
        self._out = read_affine(checkpoint, "multi_modal_projector.linear", dtype)

    @property
    def largest(self) -> Layout:
        """See `VisionEncoder`: all are alike."""
        return Layout((self._squares.side, self._squares.side))

    def read(self, picture: Picture) -> PageImage:
        """See `VisionEncoder`."""
        return PageImage(self._preprocessing.read(picture), self.largest)

    def encode(self, images: Sequence[Array]) -> torch.Tensor:
        """See `VisionEncoder`."""
        return self._out.linear(self._squares.encode(np.stack(images), self._preprocessing.scaling).flatten(0, 1))


class TiledSiglipEncoder:
    """Tiles of an image through SigLIP, neighbouring patches side by side, and one linear layer without a bias."""

    def __init__(
        self,
        vision: Mapping[str, Any],
        merged: int,
        checkpoint: Checkpoint,
        folder: Path,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self._tiling, self._merged = read_tiling(folder), merged
        size = (self._tiling.side, self._tiling.side)
        self._squares = _Squares({**_IDEFICS, **vision}, size, checkpoint, device, dtype)
        if self._squares.side % merged:
            message = (
                f"the model has {self._squares.side} patches a side, of which scale_factor {merged} cannot be made"
            )
            raise LoadError(ErrorClass.UNKNOWN, message)
        self._out = checkpoint.get("connector.modality_projection.proj.weight", dtype=dtype)

    @property
    def largest(self) -> Layout:
        """See `VisionEncoder`."""
        return self._layout(self._tiling.most)

    def read(self, picture: Picture) -> PageImage:
        """See `VisionEncoder`."""
        pixels, tiles = self._tiling.read(picture)
        return PageImage(pixels, self._layout(tiles))

    def encode(self, images: Sequence[Array]) -> torch.Tensor:
        """See `VisionEncoder`; one image at a time, for its tiles are as much work as a batch of squares."""
        encoded = [self._squares.encode(tiles, self._tiling.scaling) for tiles in images]
        return functional.linear(torch.cat([shuffled(each, self._merged).flatten(0, 1) for each in encoded]), self._out)

    def _layout(self, tiles: tuple[int, int]) -> Layout:
        side = self._squares.side // self._merged
        return Layout((side, side), tiles)


class _Squares:
    """SigLIP without its head, on squares of the size that it was made for: then its learned positions fit as they are.

    `size` is what the preprocessor makes, in pixels; `side` are the patches of one side. For Idefics3, transformers
    finds positions by fractions of a side; for those of published models (26, 27, 32 patches) that is the same.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        size: tuple[int, int],
        checkpoint: Checkpoint,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        shape = read_tower_shape(vision)
        pixels, patch = read_numbers("vision model", lambda: (int(vision["image_size"]), int(vision["patch_size"])))
        if size != (pixels, pixels):
            message = f"the preprocessor makes images of {size} pixels, the model reads {pixels} x {pixels}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        self.side = pixels // patch
        self._device = device
        self._tower = Tower(shape, read_blocks(checkpoint, "vision_model", shape, dtype), FULL_ATTENTION, device)
        self._patches = Patches(checkpoint, vision, dtype)
        self._norm = read_affine(checkpoint, "vision_model.post_layernorm", dtype)

    def encode(self, squares: Array, scaling: Scaling) -> torch.Tensor:
        """Pixels [squares, height, width, 3] of uint8 to [squares, patches, width]."""
        pixels = shifted(to_device(squares, self._device), scaling)
        hidden = self._patches.of(pixels) + self._patches.positions
        count, length, _ = hidden.shape
        hidden = self._tower.run(hidden.flatten(0, 1), [length] * count)
        return self._norm.norm(hidden, self._tower.shape.norm_eps).view(count, length, -1)
