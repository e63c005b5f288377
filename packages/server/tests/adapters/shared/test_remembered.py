"""What is remembered equals what is computed, and is bounded."""

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.remembered import Key, Remembered

LIMIT = 4
KEYS = st.lists(st.lists(st.tuples(st.integers(0, 9)), min_size=1, max_size=8), max_size=8)


def vectors(keys: Sequence[Key]) -> torch.Tensor:
    return torch.tensor([[float(each[0]), 1.0] for each in keys])


@given(KEYS)
def test_vectors_are_those_of_the_keys_and_none_is_computed_twice_in_a_call(calls: list[list[Key]]) -> None:
    asked: list[Sequence[Key]] = []

    def compute(keys: Sequence[Key]) -> torch.Tensor:
        asked.append(keys)
        return vectors(keys)

    remembered = Remembered(compute, LIMIT)
    for keys in calls:
        assert torch.equal(remembered.of(keys), vectors(keys))
        assert len(remembered._vectors) <= LIMIT
    assert all(len(set(keys)) == len(keys) for keys in asked)


def test_only_what_was_asked_for_last_is_remembered() -> None:
    asked: list[Key] = []

    def compute(keys: Sequence[Key]) -> torch.Tensor:
        asked.extend(keys)
        return vectors(keys)

    remembered = Remembered(compute, LIMIT)
    for number in (0, 1, 2, 3, 0, 4, 0, 1):  # 4 takes the place of 1, which was not asked for longest
        remembered.of([(number,)])
    assert asked == [(0,), (1,), (2,), (3,), (4,), (1,)]
