"""Attention inside each sequence of a packed batch: whole, causal, within a window, with shared keys and values.

Knows nothing of models. Queries come scaled; a group of query heads may share one head of keys and values.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from sie_server.adapters.shared.distance_bias import Bias
from sie_server.adapters.shared.padding import Padding, Paddings

# Up to here one product per head with all scores in memory is as fast as the fused kernel, and starts sooner.
PLAIN_ATTENTION_TOKENS = 128
# Queries of one block of windowed attention: the work is tokens x (block + window), so far longer is only waste.
BLOCK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class AttentionPattern:
    """Which tokens a token attends to: those at most `window` away (None: any), and no later ones if `causal`."""

    causal: bool = False
    window: int | None = None


FULL_ATTENTION: Final = AttentionPattern()
CAUSAL: Final = AttentionPattern(causal=True)


class Attention:
    """On a CPU one sequence after the other: no work on padding. Elsewhere all at once: a call costs more than that."""

    def __init__(self, device: str) -> None:
        self._paddings = None if device == "cpu" else Paddings()

    def __call__(
        self,
        heads: tuple[torch.Tensor, ...],
        out: torch.Tensor,
        lengths: list[int],
        pattern: AttentionPattern = FULL_ATTENTION,
        *,
        key_lengths: list[int] | None = None,
        bias: Bias | None = None,
    ) -> None:
        """From `heads`, queries, keys and values [heads, tokens, head width], to `out` [tokens, heads, head width].

        Keys and values may have fewer heads. `lengths` are those of the sequences; with `key_lengths`, only so many
        first tokens of each are keys: the rest see them and are seen by none. A token that sees nothing takes nothing.
        `bias` is added to scores; there is none for causal or windowed attention.
        """
        if self._paddings is not None:
            padding = self._paddings.of(lengths, out.device, key_lengths)
            query, key, value = map(padding.spread, heads)
            out.copy_(padding.gather(_padded(query, key, value, padding, pattern, bias)))
            return
        parts = (torch.split_with_sizes(part, lengths, dim=1) for part in heads)
        each = zip(*parts, torch.split_with_sizes(out, lengths), key_lengths or lengths, strict=True)
        for query, key, value, target, count in each:
            if bias is not None:
                context = _biased_sequence(query, key[:, :count], value[:, :count], bias)
            elif key_lengths is not None:
                mask = None if pattern == FULL_ATTENTION else band(len(target), count, 0, pattern, out.device)
                context = _masked(query[None], key[None, :, :count], value[None, :, :count], mask)[0]
            else:
                context = _sequence(query, key, value, pattern)
            target.copy_(context.transpose(0, 1))

    def behind(self, heads: tuple[torch.Tensor, ...], out: torch.Tensor, lengths: list[int]) -> None:
        """The same, causal, of sequences that all go on from the first of them; on a CPU only."""
        parts = (torch.split_with_sizes(part, lengths, dim=1) for part in heads)
        (first, keys, values, target), *others = zip(*parts, torch.split_with_sizes(out, lengths), strict=True)
        target.copy_(_sequence(first, keys, values, CAUSAL).transpose(0, 1))
        for query, key, value, target in others:
            every_key, every_value = torch.cat((keys, key), dim=1), torch.cat((values, value), dim=1)
            mask = band(query.shape[1], every_key.shape[1], keys.shape[1], CAUSAL, out.device)
            if every_key.shape[1] <= PLAIN_ATTENTION_TOKENS:
                context = _plain(query, every_key, every_value, mask)
            else:
                context = _fused(query[None], every_key[None], every_value[None], mask)[0]
            target.copy_(context.transpose(0, 1))


def _padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: Padding,
    pattern: AttentionPattern,
    bias: Bias | None,
) -> torch.Tensor:
    """Of [sequences, heads, tokens, head width]."""
    longest, visible = query.shape[2], padding.visible[:, None, None, :]
    if bias is not None:
        return _biased(query, key, value, bias, ~visible)
    if padding.key_lengths is not None:
        mask = visible if pattern == FULL_ATTENTION else visible & band(longest, longest, 0, pattern, query.device)
        return _masked(query, key, value, mask)
    if pattern.window is not None and pattern.window < longest - 1:
        return _blocks(query, key, value, pattern, padding.real)
    if pattern.causal:
        return _fused(query, key, value, causal=True)  # padding comes after every real token: none sees it
    return _fused(query, key, value, visible)


def _sequence(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pattern: AttentionPattern) -> torch.Tensor:
    tokens = query.shape[1]
    sees_all = pattern.window is None or pattern.window >= tokens - 1
    if tokens <= PLAIN_ATTENTION_TOKENS:
        mask = None if sees_all and not pattern.causal else band(tokens, tokens, 0, pattern, query.device)
        return _plain(query, key, value, mask)
    if sees_all:
        return _fused(query[None], key[None], value[None], causal=pattern.causal)[0]
    return _blocks(query[None], key[None], value[None], pattern, None)[0]


def _biased_sequence(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Bias) -> torch.Tensor:
    if query.shape[1] > PLAIN_ATTENTION_TOKENS:
        return _biased(query[None], key[None], value[None], bias, None)[0]
    added = bias.block(0, query.shape[1], key.shape[1]).to(query.dtype)
    return torch.bmm(torch.baddbmm(added, query, key.transpose(1, 2)).softmax(-1), value)


def _plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """All scores of one sequence in memory; returns [heads, tokens, head width]."""
    heads, tokens, width = query.shape
    grouped = query.reshape(len(key), -1, width)  # heads that share keys stand one below the other
    scores = torch.bmm(grouped, key.transpose(1, 2))
    if mask is not None:
        scores.view(heads, tokens, -1).masked_fill_(~mask, -torch.inf)
    return torch.bmm(torch.softmax(scores, dim=-1), value).view(heads, tokens, width)


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
) -> torch.Tensor:
    """Of [sequences, heads, tokens, head width]; `mask` broadcasts to [sequences, heads, queries, keys]."""
    shared = query.shape[1] != key.shape[1]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=shared
    )


def _masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    context = _fused(query, key, value, mask)
    if mask is None:
        return context
    # What a kernel gives where nothing is seen differs from one to the next; nothing is what it should be.
    return context.masked_fill(~mask.any(-1, keepdim=True), 0.0)


def _biased(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Bias, hidden: torch.Tensor | None
) -> torch.Tensor:
    """Block by block of queries: only so much of the bias is in memory. `hidden` keys are seen by none."""
    context = torch.empty_like(query)
    for block, added in bias.blocks(query.shape[2], key.shape[2]):
        mask = added[None] if hidden is None else added[None].masked_fill(hidden, -torch.inf)
        context[:, :, block] = _fused(query[:, :, block], key, value, mask.to(query.dtype))
    return context


def _blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pattern: AttentionPattern, real: torch.Tensor | None
) -> torch.Tensor:
    """Windowed attention block by block of queries, each with the keys in its reach only.

    Of [sequences, heads, tokens, head width]; `real` [sequences, tokens] is false for padding.
    """
    assert pattern.window is not None, "without a window there are no blocks"  # noqa: S101 - a bug of the caller
    tokens, behind = query.shape[2], pattern.window
    ahead = 0 if pattern.causal else behind
    near = band(BLOCK_TOKENS, behind + BLOCK_TOKENS + ahead, behind, pattern, query.device)
    context = torch.empty_like(query)
    for start in range(0, tokens, BLOCK_TOKENS):
        end = min(start + BLOCK_TOKENS, tokens)
        first, last = max(0, start - behind), min(tokens, end + ahead)
        offset = behind - (start - first)
        mask = near[: end - start, offset : offset + last - first]
        if real is not None:
            # A padding query in a block of padding would see nothing, and nothing divided by nothing is no number.
            mask = mask & (real[:, None, None, first:last] | ~real[:, None, start:end, None])
        reach = slice(first, last)
        context[:, :, start:end] = _fused(query[:, :, start:end], key[:, :, reach], value[:, :, reach], mask)
    return context


def band(rows: int, columns: int, offset: int, pattern: AttentionPattern, device: torch.device) -> torch.Tensor:
    """[rows, columns], true where the query of a row sees the key of a column; row 0 is key `offset`'s own query."""
    row, column = torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)[None, :]
    behind = row + offset - column
    mask = behind >= 0 if pattern.causal else torch.ones_like(behind, dtype=torch.bool)
    return mask if pattern.window is None else mask & (behind.abs() <= pattern.window)
