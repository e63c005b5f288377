import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared.varlen import attend_each, attend_padded


@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_both_ways_of_attention_agree(lengths: list[int], seed: int) -> None:
    heads = torch.randn(3, 2, sum(lengths), 8, generator=torch.Generator().manual_seed(seed))
    each, padded = (torch.empty(sum(lengths), 2, 8) for _ in range(2))
    attend_each(heads, each, lengths)
    attend_padded(heads, padded, lengths)
    torch.testing.assert_close(each, padded, atol=1e-5, rtol=1e-5)
