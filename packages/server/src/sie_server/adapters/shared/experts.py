"""A mixture of experts in the place of an inner layer: each token goes to the few that a router chooses for it.

Tokens are put in the order of their experts, so that each expert is one product over its own tokens.
"""

from dataclasses import dataclass

import torch

from sie_server.adapters.shared.checkpoint import Get
from sie_server.adapters.shared.linear import gelu_


@dataclass(frozen=True, slots=True)
class Routing:
    """How many experts there are, how many a token goes to, and that every so many layers have them."""

    experts: int
    chosen: int
    every: int

    def is_at(self, layer: int) -> bool:
        """Whether a layer has experts: the last of every so many."""
        return layer % self.every == self.every - 1


@dataclass(frozen=True, slots=True)
class Experts:
    """`router` is [width, experts], `up` [experts, width, inner], `down` [experts, inner, width], `bias` [width]."""

    router: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    bias: torch.Tensor
    chosen: int

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """What [tokens, width] gives, weighted by how sure the router is; those weights need not sum to 1."""
        weights, experts = torch.mm(hidden, self.router).float().softmax(-1).topk(self.chosen)
        order = experts.flatten().argsort()
        counts = experts.flatten().bincount(minlength=len(self.up)).tolist()
        tokens = torch.div(order, self.chosen, rounding_mode="floor")
        sure = weights.flatten()[order, None].to(hidden.dtype)
        found = self.bias.expand_as(hidden).clone()
        parts = zip(*(torch.split_with_sizes(each, counts) for each in (tokens, sure)), self.up, self.down, strict=True)
        for own, weight, up, down in parts:
            found.index_add_(0, own, torch.mm(gelu_(torch.mm(hidden[own], up)), down).mul_(weight))
        return found


def read_experts(get: Get, prefix: str, routing: Routing, width: int, inner: int, dtype: torch.dtype) -> Experts:
    """The experts of one layer, stored one below the other."""
    stacked = routing.experts, inner, width
    up, down = (
        get(f"{prefix}.experts.mlp.{name}", routing.experts * inner, width).view(stacked) for name in ("w1", "w2")
    )
    return Experts(
        router=get(f"{prefix}.router.layer.weight", routing.experts, width).t().contiguous().to(dtype),
        up=up.transpose(1, 2).contiguous().to(dtype),
        down=down.contiguous().to(dtype),
        bias=get(f"{prefix}.experts.bias", width).to(dtype),
        chosen=routing.chosen,
    )
