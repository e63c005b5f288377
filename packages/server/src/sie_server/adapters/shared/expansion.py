"""Attention for inputs that end in tokens nobody looks at: they see the tokens before them, and are seen by none.

Late-interaction models pad queries with such tokens, whose own vectors they keep. One that stands too far behind the
text for a layer's window takes nothing from it.
"""

import torch
from torch.nn import functional

from sie_server.adapters.shared.attention import EVERYTHING, Sight, band
from sie_server.adapters.shared.padding import Padding, Paddings


class SeenAttention:
    """As `attention.Attend`, but inside each sequence only its first `seen` tokens are keys."""

    def __init__(self, device: str) -> None:
        self._paddings = None if device == "cpu" else Paddings()

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        lengths: list[int],
        seen: list[int],
        sight: Sight = EVERYTHING,
    ) -> None:
        """See above."""
        if self._paddings is None:
            attend_each(queries, keys, values, out, lengths, seen, sight)
        else:
            attend_padded(queries, keys, values, out, self._paddings.of(lengths, out.device, seen), sight)


def attend_each(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    out: torch.Tensor,
    lengths: list[int],
    seen: list[int],
    sight: Sight,
) -> None:
    """One sequence after the other: no work on padding, at one call per sequence."""
    parts = (torch.split_with_sizes(part, lengths, dim=1) for part in (queries, keys, values))
    for query, key, value, target, count in zip(*parts, torch.split_with_sizes(out, lengths), seen, strict=True):
        mask = None if sight == EVERYTHING else band(len(target), count, 0, sight, query.device)
        context = _masked(query[None], key[None, :, :count], value[None, :, :count], mask)
        target.copy_(context[0].transpose(0, 1))


def attend_padded(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    out: torch.Tensor,
    padding: Padding,
    sight: Sight,
) -> None:
    """One masked call over a padded copy."""
    query, key, value = map(padding.spread, (queries, keys, values))
    visible, longest = padding.visible[:, None, None, :], query.shape[2]
    mask = visible if sight == EVERYTHING else visible & band(longest, longest, 0, sight, out.device)
    out.copy_(padding.gather(_masked(query, key, value, mask)))


def _masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    shared = query.shape[1] != key.shape[1]
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0, enable_gqa=shared)
    if mask is None:
        return context
    # What a kernel gives where nothing is seen differs from one to the next; nothing is what it should be.
    return context.masked_fill(~mask.any(-1, keepdim=True), 0.0)
