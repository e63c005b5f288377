"""What OWLv2 computes of each patch of an image: which label fits how well, and the box of the thing it belongs to.

Minderer et al. 2023, arXiv:2306.09683; tensor names are those of the published checkpoints. Float32 on every device.
"""

import torch
from torch.nn import functional

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.tower import Affine, read_affine
from sie_server.core.lifecycle import ErrorClass

_TINY = 1e-6  # against division by the length of a vector of zeros
_EDGE = 1e-4  # against the logarithm of 0 at the edge of the image


class OwlHeads:
    """The heads on top of both towers; `grid` is (rows, columns) of patches, `width` that of label vectors."""

    def __init__(self, checkpoint: Checkpoint, grid: tuple[int, int], width: int, norm_eps: float) -> None:
        self._eps = norm_eps
        self._merge = read_affine(checkpoint, "layer_norm", torch.float32)
        self._class = read_affine(checkpoint, "class_head.dense0", torch.float32)
        self._shift = read_affine(checkpoint, "class_head.logit_shift", torch.float32)
        self._scale = read_affine(checkpoint, "class_head.logit_scale", torch.float32)
        self._box = [read_affine(checkpoint, f"box_head.dense{at}", torch.float32) for at in range(3)]
        self._bias = box_bias(*grid).to(checkpoint.device)
        found = len(self._class.bias)
        if found != width:
            message = f"class_head gives vectors of {found} components, those of labels have {width}"
            raise LoadError(ErrorClass.UNKNOWN, message)

    def features(self, states: torch.Tensor) -> torch.Tensor:
        """[1 + patches, width of the image tower], the image's own token first, to float32 [patches, the same]."""
        states = states.float()
        return self._merge.norm(states[1:] * states[:1], self._eps)

    def logits(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[patches, width of the tower] and [labels, width of labels] to [patches, labels]."""
        similar = _unit(self._class.linear(features)) @ _unit(_unit(labels.float(), tiny=0.0)).t()
        scale = functional.elu(self._scale.linear(features)) + 1
        return (similar + self._shift.linear(features)) * scale

    def boxes(self, features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """[boxes, 4] of the patches at these places: centre, width and height as shares of the square's side."""
        return torch.sigmoid(_chain(self._box, features[places]) + self._bias[places])


def box_bias(rows: int, columns: int) -> torch.Tensor:
    """Where a patch looks before anything is learned: float32 [patches, 4] of logits, one patch wide and high."""
    down, across = torch.arange(1, rows + 1) / rows, torch.arange(1, columns + 1) / columns
    centres = torch.stack([across.repeat(rows), down.repeat_interleave(columns)], dim=1)
    sizes = torch.tensor([1 / columns, 1 / rows]).expand_as(centres)
    shares = torch.cat([centres, sizes], dim=1)
    bias: torch.Tensor = torch.log(shares + _EDGE) - torch.log1p(-shares + _EDGE)
    return bias


def _chain(layers: list[Affine], states: torch.Tensor) -> torch.Tensor:
    for layer in layers[:-1]:
        states = functional.gelu(layer.linear(states))
    return layers[-1].linear(states)


def _unit(vectors: torch.Tensor, tiny: float = _TINY) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / (lengths + tiny)
