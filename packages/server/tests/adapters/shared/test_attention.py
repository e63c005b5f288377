from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared.attention import Attention, AttentionPattern

each, padded = Attention("cpu"), Attention("cuda")  # one for all batches, as an encoder has it
# How many tokens there are, and how many of them are seen.
SIZES = st.integers(1, 400).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length)))
PATTERNS = st.builds(AttentionPattern, causal=st.booleans(), window=st.none() | st.integers(0, 200))


def by_the_book(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pattern: AttentionPattern, seen: int
) -> torch.Tensor:
    """One sequence, written as the definition reads; [tokens, heads, head width]."""
    tokens, group = queries.shape[1], len(queries) // len(keys)
    behind = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    hidden = (torch.arange(tokens) >= seen).expand(tokens, tokens).clone()
    if pattern.causal:
        hidden |= behind < 0
    if pattern.window is not None:
        hidden |= behind.abs() > pattern.window
    heads = []
    for at, query in enumerate(queries):
        scores = (query @ keys[at // group].T).masked_fill(hidden, -torch.inf)
        heads.append(torch.softmax(scores, -1).nan_to_num() @ values[at // group])
    return torch.stack(heads, 1)


@given(st.lists(SIZES, min_size=1, max_size=4), st.booleans(), PATTERNS, st.sampled_from([1, 2]), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_both_ways_of_attention_equal_its_definition(
    sizes: list[tuple[int, int]], sees_all: bool, pattern: AttentionPattern, group: int, seed: int
) -> None:
    lengths, seen = [each for each, _ in sizes], None if sees_all else [each for _, each in sizes]
    random: Any = torch.Generator().manual_seed(seed)
    queries = torch.randn(2 * group, sum(lengths), 8, generator=random)
    keys, values = torch.randn(2, 2, sum(lengths), 8, generator=random)
    parts = (torch.split_with_sizes(part, lengths, 1) for part in (queries, keys, values))
    each_part = zip(*parts, seen or lengths, strict=True)
    expected = torch.cat([by_the_book(q, k, v, pattern, count) for q, k, v, count in each_part])
    for attend in (each, padded, padded):  # the third as a second layer of the same batch
        out = torch.empty(sum(lengths), 2 * group, 8)
        attend((queries, keys, values), out, lengths, pattern, key_lengths=seen)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=4), st.sampled_from([1, 2]), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_sequences_that_go_on_from_one_see_it_as_if_each_began_with_it(
    lengths: list[int], group: int, seed: int
) -> None:
    random: Any = torch.Generator().manual_seed(seed)
    queries = torch.randn(2 * group, sum(lengths), 8, generator=random)
    keys, values = torch.randn(2, 2, sum(lengths), 8, generator=random)
    out = torch.empty(sum(lengths), 2 * group, 8)
    each.behind((queries, keys, values), out, lengths)

    first, *others = zip(*(torch.split_with_sizes(part, lengths, 1) for part in (queries, keys, values)), strict=True)
    for other, found in zip(others, torch.split_with_sizes(out, lengths)[1:], strict=True):
        whole = [torch.cat(parts, 1) for parts in zip(first, other, strict=True)]
        expected = by_the_book(whole[0], whole[1], whole[2], AttentionPattern(causal=True), whole[0].shape[1])
        torch.testing.assert_close(torch.cat((out[: lengths[0]], found)), expected, atol=1e-5, rtol=1e-5)
