"""What is cached equals what is computed, and is bounded."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.shared.vector_cache import Key, VectorCache

SIZE = 4
LIMIT = 3  # tokens of one call
KEYS = st.lists(st.lists(st.tuples(st.integers(0, 9)), min_size=1, max_size=8), max_size=8)


def vectors(texts: Sequence[Key] | Sequence[Array]) -> torch.Tensor:
    return torch.tensor([[float(each[0]), 1.0] for each in texts])


def recording(asked: list[int]) -> Callable[[Sequence[Array]], torch.Tensor]:
    def compute(texts: Sequence[Array]) -> torch.Tensor:
        assert len(texts) <= LIMIT
        asked.extend(int(each[0]) for each in texts)
        return vectors(texts)

    return compute


@given(KEYS)
def test_vectors_are_those_of_the_keys_and_none_is_computed_twice_in_a_call(calls: list[list[Key]]) -> None:
    asked: list[int] = []
    cache = VectorCache(recording(asked), LIMIT, SIZE)
    for keys in calls:
        asked.clear()
        missing = cache.missing_tokens(dict.fromkeys(keys))
        assert torch.equal(cache.of(keys), vectors(keys))
        assert len(set(asked)) == len(asked) == missing
        assert len(cache._vectors) <= SIZE


def test_only_what_was_asked_for_last_is_cached() -> None:
    asked: list[int] = []
    cache = VectorCache(recording(asked), LIMIT, SIZE)
    for number in (0, 1, 2, 3, 0, 4, 0, 1):  # 4 takes the place of 1, which was not asked for longest
        cache.of([(number,)])
    assert asked == [0, 1, 2, 3, 4, 1]
