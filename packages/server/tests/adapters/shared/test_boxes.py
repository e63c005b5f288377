"""Laws of boxes: inside the image, sorted, and without repetitions if that is asked for."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import Box, DetectedObject
from sie_server.adapters.shared.boxes import MAX_OBJECTS, Seen, corners_of, objects

WIDTH, HEIGHT = 40, 30
LABELS = ["cat", "dog"]
SIDES = st.integers(-20, 60)
BOXES = st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES, st.integers(0, 1), st.integers(1, 99)), max_size=12)
Given = list[tuple[int, int, int, int, int, int]]


def seen(boxes: Given) -> Seen:
    corners = np.array([each[:4] for each in boxes], np.float32).reshape(-1, 4)
    labels = np.array([each[4] for each in boxes], np.int64)
    return Seen(np.array([each[5] / 100 for each in boxes], np.float32), labels, corners)


def found(boxes: Given, **options: Any) -> tuple[DetectedObject, ...]:
    return objects(seen(boxes), LABELS, WIDTH, HEIGHT, options)


def overlap(one: Box, other: Box) -> float:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    shared = max(across, 0) * max(down, 0)
    return shared / (one.width * one.height + other.width * other.height - shared)


@given(BOXES)
def test_objects_lie_in_the_image_the_best_first_and_none_that_does_is_lost(boxes: Given) -> None:
    result = found(boxes)
    assert [each.score for each in result] == sorted((each.score for each in result), reverse=True)
    for each in result:
        assert 0 <= each.bbox.x < each.bbox.x + each.bbox.width <= WIDTH
        assert 0 <= each.bbox.y < each.bbox.y + each.bbox.height <= HEIGHT
    inside = [
        each for each in boxes if max(each[0], 0) < min(each[2], WIDTH) and max(each[1], 0) < min(each[3], HEIGHT)
    ]
    assert len(result) == len(inside)
    assert sorted(each.label for each in result) == sorted(LABELS[each[4]] for each in inside)


@given(BOXES, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_without_repetitions_every_object_is_apart_from_the_others_or_the_best_of_its_like(
    boxes: Given, most: float
) -> None:
    everything, kept = found(boxes), found(boxes, nms_threshold=most)
    for one, other in combinations(kept, 2):
        assert one.label != other.label or overlap(one.bbox, other.bbox) <= most + 1e-6
    for each in everything:
        better = [one for one in kept if one.label == each.label and one.score >= each.score]
        assert any(one == each or overlap(one.bbox, each.bbox) > most for one in better)


def test_as_many_objects_as_are_wanted_the_best_ones() -> None:
    boxes: Given = [(at, 0, at + 1, 1, 0, 1 + at) for at in range(10)]
    assert [each.score for each in found(boxes, max_objects=2)] == pytest.approx([0.10, 0.09])
    many: Array = np.ones((MAX_OBJECTS + 5,), np.float32)
    everywhere = Seen(many, np.zeros(len(many), np.int64), np.tile(np.array([0, 0, 1, 1], np.float32), (len(many), 1)))
    assert len(objects(everywhere, LABELS, WIDTH, HEIGHT, {})) == MAX_OBJECTS


def test_corners_are_half_a_width_and_height_from_the_centre() -> None:
    assert corners_of(np.array([[5.0, 6.0, 4.0, 2.0]])).tolist() == [[3.0, 5.0, 7.0, 7.0]]
