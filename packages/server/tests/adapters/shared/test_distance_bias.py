import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared import attention, distance_bias
from sie_server.adapters.shared.attention import Attention
from sie_server.adapters.shared.distance_bias import alibi, bias_of

HEADS, WIDTH = 3, 4


def by_hand(heads: torch.Tensor, lengths: list[int], seen: list[int], rows: torch.Tensor) -> torch.Tensor:
    """Each sequence alone, all scores in memory: [tokens, heads, head width]."""
    middle, parts = rows.shape[1] // 2, []
    for part, count in zip(torch.split_with_sizes(heads, lengths, dim=2), seen, strict=True):
        query, key, value = part[0], part[1, :, :count], part[2, :, :count]
        apart = torch.arange(count)[None, :] - torch.arange(part.shape[2])[:, None]
        parts.append(((query @ key.transpose(1, 2) + rows[:, apart + middle]).softmax(-1) @ value).transpose(0, 1))
    return torch.cat(parts)


@given(
    st.lists(st.integers(1, 23), min_size=1, max_size=5),
    st.sampled_from(["cpu", "cuda"]),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_scores_are_biased_by_distance_in_blocks_of_any_size(
    lengths: list[int], device: str, expanded: bool, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance_bias, "BLOCK_TOKENS", 8)
        patch.setattr(attention, "PLAIN_ATTENTION_TOKENS", 5)
        generator = torch.Generator().manual_seed(seed)
        heads = torch.randn(3, HEADS, sum(lengths), WIDTH, generator=generator)
        rows = torch.randn(HEADS, 2 * 30 - 1, generator=generator)
        seen = [max(1, length // 2) for length in lengths] if expanded else None
        bias, out = bias_of(rows, max(lengths)), torch.empty(sum(lengths), HEADS, WIDTH)
        Attention(device)(heads.unbind(), out, lengths, key_lengths=seen, bias=bias)
        torch.testing.assert_close(out, by_hand(heads, lengths, seen or lengths, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 16])
def test_the_cost_of_distance_grows_evenly_and_at_another_rate_in_each_head(heads: int) -> None:
    rows = alibi(heads, 6)
    rates = -rows[:, 6]  # one token away
    torch.testing.assert_close(rows, -rates[:, None] * torch.arange(-5, 6).abs())
    assert len(set(rates.tolist())) == heads
    assert (rates > 0).all()
