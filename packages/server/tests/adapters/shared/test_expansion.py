import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared.attention import EVERYTHING, Sight, attend_each
from sie_server.adapters.shared.expansion import attend_each as each_seen
from sie_server.adapters.shared.expansion import attend_padded
from sie_server.adapters.shared.padding import Paddings

SIZES = st.lists(
    st.integers(1, 150).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length))),
    min_size=1,
    max_size=5,
)
SIGHTS = st.sampled_from([EVERYTHING, Sight(window=7), Sight(window=60), Sight(causal=True)])


def heads_of(sizes: list[tuple[int, int]], seed: int) -> torch.Tensor:
    return torch.randn(3, 2, sum(length for length, _ in sizes), 8, generator=torch.Generator().manual_seed(seed))


@given(SIZES, st.integers(0, 2**31), SIGHTS)
@settings(max_examples=25, deadline=None)
def test_both_ways_agree(sizes: list[tuple[int, int]], seed: int, sight: Sight) -> None:
    heads, lengths, seen = heads_of(sizes, seed), [each for each, _ in sizes], [each for _, each in sizes]
    each, padded = (torch.empty(sum(lengths), 2, 8) for _ in range(2))
    each_seen(heads[0], heads[1], heads[2], each, lengths, seen, sight)
    padding = Paddings().of(lengths, padded.device, seen)
    attend_padded(heads[0], heads[1], heads[2], padded, padding, sight)
    torch.testing.assert_close(each, padded, atol=1e-5, rtol=1e-5)


@given(SIZES, st.integers(0, 2**31), SIGHTS)
@settings(max_examples=25, deadline=None)
def test_tokens_that_are_seen_by_none_change_nothing_for_the_others(
    sizes: list[tuple[int, int]], seed: int, sight: Sight
) -> None:
    heads, lengths, seen = heads_of(sizes, seed), [each for each, _ in sizes], [each for _, each in sizes]
    whole = torch.empty(sum(lengths), 2, 8)
    each_seen(heads[0], heads[1], heads[2], whole, lengths, seen, sight)
    kept = torch.cat([torch.arange(length) < count for length, count in sizes])
    alone = torch.empty(sum(seen), 2, 8)
    queries, keys, values = heads[:, :, kept]
    attend_each(queries, keys, values, alone, seen, sight)
    torch.testing.assert_close(whole[kept], alone, atol=1e-5, rtol=1e-5)
