"""Windows over patches, and patches side by side, lie as those of transformers' models do."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.patches import Patches, shuffled, windows_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
    from transformers.vision_utils import get_vision_window_index


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), side=st.integers(1, 6))
def test_windows_are_those_of_qwen(rows: int, columns: int, side: int) -> None:
    order, counts = windows_of(rows, columns, side)
    grid = torch.tensor([[1, 2 * rows, 2 * columns]])
    expected, ends = get_vision_window_index(grid, spatial_merge_size=2, window_size=side * 8, patch_size=4)
    np.testing.assert_array_equal(order, expected.numpy())
    np.testing.assert_array_equal(4 * np.cumsum([0, *counts]), ends.numpy())


@given(
    images=st.integers(1, 3),
    side=st.integers(1, 5),
    down=st.integers(5, 23),
    across=st.integers(5, 23),
    bias=st.booleans(),
)
def test_patches_are_those_of_a_convolution(images: int, side: int, down: int, across: int, bias: bool) -> None:
    random: Any = torch.Generator().manual_seed(images)
    tensors = {
        "vision_model.embeddings.patch_embedding.weight": torch.randn(4, 3, side, side, generator=random),
        "vision_model.embeddings.position_embedding.weight": torch.zeros(1, 4),
    }
    if bias:
        tensors["vision_model.embeddings.patch_embedding.bias"] = torch.randn(4, generator=random)
    patches = Patches(Checkpoint(tensors, str, "cpu"), {"patch_size": side}, torch.float32)
    pixels = torch.randn(images, 3, down, across, generator=random)
    weight, shift = (tensors.get(f"vision_model.embeddings.patch_embedding.{name}") for name in ("weight", "bias"))
    assert weight is not None
    expected = torch.nn.functional.conv2d(pixels, weight, shift, stride=side).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches.of(pixels), expected, atol=1e-5, rtol=1e-5)


@given(images=st.integers(1, 3), merged=st.integers(1, 4), side=st.integers(1, 5), width=st.integers(1, 4))
def test_neighbouring_patches_lie_side_by_side_as_in_idefics(images: int, merged: int, side: int, width: int) -> None:
    count = (side * merged) ** 2
    squares = torch.arange(images * count * width, dtype=torch.float32).view(images, count, width)
    shuffle: Any = Idefics3Connector.pixel_shuffle
    torch.testing.assert_close(shuffled(squares, merged), shuffle(SimpleNamespace(), squares, merged))
