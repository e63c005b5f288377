"""Attention for inputs that end in tokens nobody looks at: they see the tokens before them, and are seen by none.

Late-interaction models pad queries with such tokens, whose own vectors they keep.
"""

import torch
from torch.nn import functional


def attend_seen(heads: torch.Tensor, out: torch.Tensor, lengths: list[int], seen: list[int]) -> None:
    """Attention inside each sequence of a packed batch, in which only its first `seen` tokens are keys.

    `heads` is [3, heads, tokens, head width] with scaled queries; `out` is [tokens, heads, head width].
    """
    if heads.device.type == "cpu":
        _each(heads, out, lengths, seen)
    else:
        _padded(heads, out, lengths, seen)


def _each(heads: torch.Tensor, out: torch.Tensor, lengths: list[int], seen: list[int]) -> None:
    """One sequence after the other: no work on padding, at one call per sequence."""
    queries, keys, values = (torch.split_with_sizes(part, lengths, dim=1) for part in heads)
    targets = torch.split_with_sizes(out, lengths)
    for query, key, value, target, count in zip(queries, keys, values, targets, seen, strict=True):
        context = functional.scaled_dot_product_attention(
            query[None], key[None, :, :count], value[None, :, :count], scale=1.0
        )
        target.copy_(context[0].transpose(0, 1))


def _padded(heads: torch.Tensor, out: torch.Tensor, lengths: list[int], seen: list[int]) -> None:
    """One masked call over a padded copy: for devices on which a call costs more than padding."""
    places = torch.arange(max(lengths), device=heads.device)[None, :]
    real = places < torch.tensor(lengths, device=heads.device)[:, None]
    visible = places < torch.tensor(seen, device=heads.device)[:, None]
    padded = heads.new_zeros(len(lengths), max(lengths), 3, *heads.shape[1::2])
    padded[real] = heads.permute(2, 0, 1, 3)
    query, key, value = padded.permute(2, 0, 3, 1, 4)
    mask = visible[:, None, None, :]
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    out.copy_(context.transpose(1, 2)[real])
