"""From the pixels of images to rows of vectors, one for each square, as image towers read them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.images import Scaling


def shifted(pixels: torch.Tensor, how: Scaling) -> torch.Tensor:
    """[..., height, width, 3] of uint8 to [..., 3, height, width] of float32 as the model saw them in training."""
    mean, deviation = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (how.mean, how.deviation))
    planes = pixels.movedim(-1, -3).contiguous()  # as bytes: numbers of one colour in a row are several times as fast
    return planes.float().mul_(how.rescale).sub_(mean).div_(deviation)


class Patches:
    """An image of CLIP or SigLIP as a row of squares, each projected to the tower's width; `positions` are learned."""

    def __init__(self, checkpoint: Checkpoint, vision: Mapping[str, Any], dtype: torch.dtype) -> None:
        name = "vision_model.embeddings"
        self._size = int(vision["patch_size"])
        self._weight = checkpoint.get(f"{name}.patch_embedding.weight", dtype=dtype).flatten(1)
        self._bias = checkpoint.find(f"{name}.patch_embedding.bias", dtype=dtype)
        self.positions = checkpoint.get(f"{name}.position_embedding.weight", dtype=dtype)

    def of(self, pixels: torch.Tensor) -> torch.Tensor:
        """[images, 3, height, width] to [images, patches, tower's width]; what is left of a square is not read."""
        side = self._size
        images, colours, down, across = (*pixels.shape[:2], *(each // side for each in pixels.shape[2:]))
        whole = pixels[..., : down * side, : across * side].to(self._weight.dtype)
        # As one product of squares, which takes a fraction of what a convolution does.
        grid = whole.reshape(images, colours, down, side, across, side).permute(0, 2, 4, 1, 3, 5)
        return functional.linear(grid.reshape(images, down * across, -1), self._weight, self._bias)


def blocks_of(pixels: torch.Tensor, side: int, merged: int) -> torch.Tensor:
    """An image [3, height, width] as squares [squares, 3 x side x side], those that are merged later side by side.

    Blocks of `merged` x `merged` squares follow each other row by row, and so do the squares in each of them.
    """
    colours, height, width = pixels.shape
    down, across = height // (side * merged), width // (side * merged)
    grid = pixels.view(colours, down, merged, side, across, merged, side)
    return grid.permute(1, 4, 2, 5, 0, 3, 6).reshape(-1, colours * side * side)


def places_of(rows: int, columns: int, merged: int, device: str) -> torch.Tensor:
    """Row and column of each square in the order of `blocks_of`: [squares, 2]."""
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    grid = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1)
    blocks = grid.view(rows // merged, merged, columns // merged, merged, 2)
    return blocks.transpose(1, 2).reshape(-1, 2)


def windows_of(rows: int, columns: int, side: int) -> tuple[Array, list[int]]:
    """The places of a grid window by window, row by row in each: int64 [rows x columns], and how many each window has.

    Windows have `side` rows and columns, at the ends of the grid as many as are left.
    """
    grid = np.arange(rows * columns).reshape(rows, columns)
    windows = [
        grid[top : top + side, left : left + side].ravel()
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]
    return np.concatenate(windows), [len(window) for window in windows]


def shuffled(squares: torch.Tensor, merged: int) -> torch.Tensor:
    """Neighbouring squares of images side by side in one token: [images, side x side, width] to fewer and wider ones.

    The tokens of an image stand row by row, and so do the `merged` x `merged` squares in each of them.
    """
    images, count, width = squares.shape
    side = round(count**0.5) // merged
    grid = squares.view(images, side, merged, side, merged, width)
    return grid.transpose(2, 3).reshape(images, side * side, merged * merged * width)
