"""Boxes that a detector saw, to objects in pixels of the image: clamped, the best first, repetitions left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import Box, DetectedObject

# Of one image. At a threshold of 0 every patch of an image is an object: thousands, which nobody reads.
MAX_OBJECTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in one image: float32 scores [boxes], for each box the place of its label, and its corners.

    `corners` [boxes, 4] are left, top, right and bottom in pixels, and may lie outside of the image.
    """

    scores: Array
    labels: Array
    corners: Array


def corners_of(boxes: Array) -> Array:
    """[..., 4] of centre, width and height to left, top, right and bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def objects(
    seen: Seen, labels: Sequence[str], width: int, height: int, options: Mapping[str, Any]
) -> tuple[DetectedObject, ...]:
    """The objects of an image of this size, the best first; what does not reach into the image is none.

    Options: `nms_threshold` (none), `max_objects` (1000).
    """
    corners = np.clip(seen.corners, 0, np.array([width, height, width, height], seen.corners.dtype))
    inside = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(axis=1))
    order = inside[np.argsort(-seen.scores[inside], kind="stable")]
    overlap = options.get("nms_threshold")
    if overlap is not None:
        order = order[distinct(corners[order], seen.labels[order], float(overlap))]
    return tuple(
        DetectedObject(labels[int(seen.labels[at])], float(seen.scores[at]), _box(corners[at]))
        for at in order[: int(options.get("max_objects", MAX_OBJECTS))]
    )


def distinct(corners: Array, labels: Array, overlap: float) -> list[int]:
    """Places of the boxes, given best first, that overlap no better one of their label by more than this share.

    The share is that of what two boxes cover together (intersection over union).
    """
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    left = np.arange(len(corners))
    kept: list[int] = []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low = np.maximum(corners[best, :2], corners[left, :2])
        high = np.minimum(corners[best, 2:], corners[left, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        repeats = shared > overlap * (areas[best] + areas[left] - shared)
        left = left[~(repeats & (labels[left] == labels[best]))]
    return kept


def _box(corners: Array) -> Box:
    left, top, right, bottom = corners.tolist()
    return Box(left, top, right - left, bottom - top)
