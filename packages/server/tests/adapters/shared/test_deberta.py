from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared.deberta import attend_each, attend_padded
from sie_server.adapters.shared.deberta_weights import Distances
from sie_server.adapters.shared.padding import Paddings

HEADS, HEAD_WIDTH = 3, 4


def by_the_book(heads: torch.Tensor, distances: Distances, tokens: int) -> torch.Tensor:
    """One sequence, pair by pair as the definition reads; [tokens, heads, head width]."""
    query, key, value = heads
    scores = query @ key.transpose(1, 2)
    for i in range(tokens):
        for j in range(tokens):
            if distances.keys is not None:
                scores[:, i, j] += (query[:, i] * distances.keys[:, len(distances.keys[0]) // 2 - (i - j)]).sum(-1)
            if distances.queries is not None:
                scores[:, i, j] += (key[:, j] * distances.queries[:, len(distances.queries[0]) // 2 + i - j]).sum(-1)
    context: torch.Tensor = scores.softmax(-1) @ value
    return context.transpose(0, 1)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.booleans(), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_both_ways_of_attention_equal_its_definition(lengths: list[int], c2p: bool, p2c: bool, seed: int) -> None:
    random: Any = torch.Generator().manual_seed(seed)
    heads = torch.randn(3, HEADS, sum(lengths), HEAD_WIDTH, generator=random)
    keys, queries = torch.randn(2, HEADS, 2 * max(lengths) - 1, HEAD_WIDTH, generator=random)
    distances = Distances(keys if c2p else None, queries if p2c else None)
    parts = zip(torch.split_with_sizes(heads, lengths, 2), lengths, strict=True)
    expected = torch.cat([by_the_book(part, distances, tokens) for part, tokens in parts])
    each, padded = (torch.empty(sum(lengths), HEADS, HEAD_WIDTH) for _ in range(2))
    attend_each(heads, distances, each, lengths)
    attend_padded(heads, distances, padded, Paddings().of(lengths, padded.device))
    for out in (each, padded):
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
