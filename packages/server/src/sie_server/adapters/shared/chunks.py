"""Cuts what one batch came to into pieces of bounded size: an input of many sequences is one entry of the queue."""

from collections.abc import Iterator, Sequence

# Tokens of one piece: what fits the cache of a core, and what fills an accelerator.
CPU_TOKENS = 512
ACCELERATOR_TOKENS = 16384


def chunk_tokens(device: str) -> int:
    """How many tokens one piece may have on a device."""
    return CPU_TOKENS if device == "cpu" else ACCELERATOR_TOKENS


def chunks(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Places of all sequences, similar lengths together, in pieces of at most `limit` tokens with padding.

    A sequence that is longer than the limit is a piece of its own.
    """
    piece: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if piece and (len(piece) + 1) * lengths[at] > limit:
            yield piece
            piece = []
        piece.append(at)
    if piece:
        yield piece
