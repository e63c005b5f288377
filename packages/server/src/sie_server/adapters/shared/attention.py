"""Attention inside each sequence of a packed batch: whole, causal, within a window, with shared keys and values.

Knows nothing of models. Queries come scaled; a group of query heads may share one head of keys and values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from sie_server.adapters.shared.padding import Paddings

# Up to here one product per head with all scores in memory is as fast as the fused kernel, and starts sooner.
PLAIN_ATTENTION_TOKENS = 128
# Queries of one block of windowed attention: the work is tokens x (block + window), so far longer is only waste.
BLOCK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Sight:
    """Which tokens a token sees: those at most `window` away (None: any), and no later ones if `causal`."""

    causal: bool = False
    window: int | None = None


EVERYTHING: Final = Sight()

# (queries [heads, tokens, head width], keys and values [shared heads, tokens, head width],
#  out [tokens, heads, head width], length of each sequence, sight)
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[int], Sight], None]


def attend_on(device: str) -> Attend:
    """The way that suits a device."""
    return attend_each if device == "cpu" else PaddedAttention()


def attend_each(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    out: torch.Tensor,
    lengths: list[int],
    sight: Sight = EVERYTHING,
) -> None:
    """One sequence after the other: no work on padding, at one call per sequence. See `Attend`."""
    parts = (torch.split_with_sizes(part, lengths, dim=1) for part in (queries, keys, values))
    for query, key, value, target in zip(*parts, torch.split_with_sizes(out, lengths), strict=True):
        tokens = len(target)
        sees_all = sight.window is None or sight.window >= tokens - 1
        if tokens <= PLAIN_ATTENTION_TOKENS:
            seen = None if sees_all and not sight.causal else band(tokens, tokens, 0, sight, query.device)
            context = _plain(query, key, value, seen)
        elif sees_all:
            context = _fused(query[None], key[None], value[None], causal=sight.causal)[0]
        else:
            context = _blocks(query[None], key[None], value[None], sight, None)[0]
        target.copy_(context.transpose(0, 1))


class PaddedAttention:
    """The same over a padded copy. See `Attend`."""

    def __init__(self) -> None:
        self._paddings = Paddings()

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        lengths: list[int],
        sight: Sight = EVERYTHING,
    ) -> None:
        """See `Attend`."""
        padding = self._paddings.of(lengths, out.device)
        query, key, value = map(padding.spread, (queries, keys, values))
        if sight.window is not None and sight.window < query.shape[2] - 1:
            context = _blocks(query, key, value, sight, padding.real)
        elif sight.causal:
            context = _fused(query, key, value, causal=True)  # padding comes after every real token: none sees it
        else:
            context = _fused(query, key, value, padding.real[:, None, None, :])
        out.copy_(padding.gather(context))


def _plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """All scores of one sequence in memory; returns [heads, tokens, head width]."""
    heads, tokens, width = query.shape
    grouped = query.reshape(len(key), -1, width)  # heads that share keys stand one below the other
    scores = torch.bmm(grouped, key.transpose(1, 2))
    if seen is not None:
        scores.view(heads, tokens, tokens).masked_fill_(~seen, -torch.inf)
    return torch.bmm(torch.softmax(scores, dim=-1), value).view(heads, tokens, width)


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor | None = None,
    *,
    causal: bool = False,
) -> torch.Tensor:
    """Of [sequences, heads, tokens, head width]; `seen` broadcasts to [sequences, heads, queries, keys]."""
    shared = query.shape[1] != key.shape[1]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, is_causal=causal, scale=1.0, enable_gqa=shared
    )


def _blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sight: Sight, real: torch.Tensor | None
) -> torch.Tensor:
    """Windowed attention block by block of queries, each with the keys in its reach only.

    Of [sequences, heads, tokens, head width]; `real` [sequences, tokens] is false for padding.
    """
    assert sight.window is not None, "without a window there are no blocks"  # noqa: S101 - a bug of the caller
    tokens, behind = query.shape[2], sight.window
    ahead = 0 if sight.causal else behind
    near = band(BLOCK_TOKENS, behind + BLOCK_TOKENS + ahead, behind, sight, query.device)
    context = torch.empty_like(query)
    for start in range(0, tokens, BLOCK_TOKENS):
        end = min(start + BLOCK_TOKENS, tokens)
        first, last = max(0, start - behind), min(tokens, end + ahead)
        offset = behind - (start - first)
        seen = near[: end - start, offset : offset + last - first]
        if real is not None:
            # A padding query in a block of padding would see nothing, and nothing divided by nothing is no number.
            seen = seen & (real[:, None, None, first:last] | ~real[:, None, start:end, None])
        reach = slice(first, last)
        context[:, :, start:end] = _fused(query[:, :, start:end], key[:, :, reach], value[:, :, reach], seen)
    return context


def band(rows: int, columns: int, offset: int, sight: Sight, device: torch.device) -> torch.Tensor:
    """[rows, columns], true where the query of a row sees the key of a column; row 0 is key `offset`'s own query."""
    row, column = torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)[None, :]
    behind = row + offset - column
    seen = behind >= 0 if sight.causal else torch.ones_like(behind, dtype=torch.bool)
    return seen if sight.window is None else seen & (behind.abs() <= sight.window)
