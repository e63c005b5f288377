"""What is added to attention's scores by how far apart two tokens are: ALiBi, and the learned distances of MPNet.

What is added to a score is told by the head and by the key's place less the query's, so one row of numbers a head holds
all of it. Only as much of the square that it makes is in memory as a block of queries needs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Queries of one block: 12 heads and 8192 keys take 200 MB of float32 in it.
BLOCK_TOKENS = 512
# Distances that MPNet tells apart, one by one and then in ever wider steps, and from where on all are one.
BUCKETS, MAX_DISTANCE = 32, 128


@dataclass(frozen=True, slots=True)
class Bias:
    """`rows` [heads, 2 x longest - 1] by distance, from keys far before a query to keys far behind.

    `square` is what the first block of queries adds for the first keys, worked out once for all layers of a batch.
    """

    rows: torch.Tensor
    square: torch.Tensor

    def block(self, first: int, last: int, keys: int) -> torch.Tensor:
        """What queries `first` to `last` add for so many keys: [heads, queries, keys]."""
        if last <= self.square.shape[1] and keys <= self.square.shape[2]:
            return self.square[:, first:last, :keys]
        return _lines(self.rows, first, last, keys)

    def blocks(self, queries: int, keys: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Block by block of queries, which these are and what they add."""
        for first in range(0, queries, BLOCK_TOKENS):
            last = min(first + BLOCK_TOKENS, queries)
            yield slice(first, last), self.block(first, last, keys)


def bias_of(rows: torch.Tensor, longest: int) -> Bias:
    """The bias of a batch whose longest sequence has so many tokens."""
    side = min(longest, BLOCK_TOKENS)
    return Bias(rows, _lines(rows, 0, side, side))


def _lines(rows: torch.Tensor, first: int, last: int, keys: int) -> torch.Tensor:
    middle = rows.shape[1] // 2
    starts = torch.arange(middle - first, middle - last, -1, device=rows.device)
    return rows.unfold(1, keys, 1)[:, starts]  # a query one further on begins one distance before


def alibi(heads: int, positions: int) -> torch.Tensor:
    """The rows of ALiBi (Press et al. 2022) for encoders: distance costs, in each head at a rate of its own."""
    power = 2 ** math.floor(math.log2(heads))
    rates = [2 ** (-8 * (at + 1) / power) for at in range(power)]
    rates += [2 ** (-4 * (2 * at + 1) / power) for at in range(heads - power)]
    distances = torch.arange(1 - positions, positions).abs()
    return -torch.tensor(rates)[:, None] * distances


def learned(table: torch.Tensor, positions: int) -> torch.Tensor:
    """The rows of MPNet, whose `table` [buckets, heads] has half its buckets for keys behind a query."""
    half, near = BUCKETS // 2, BUCKETS // 4
    distances = torch.arange(1 - positions, positions)
    far = distances.abs()
    # In float32 and step by step as the model was trained: where a step ends, rounding decides.
    steps = torch.log(far.clamp(min=near).float() / near) / math.log(MAX_DISTANCE / near) * (half - near)
    buckets = torch.where(far < near, far, (near + steps.long()).clamp(max=half - 1))
    return table[(buckets + half * (distances > 0)).to(table.device)].t().contiguous()
