"""Latent attention (NV-Embed, arXiv:2405.17428): every token's state looks at learned vectors, and at nothing else.

A block of cross attention whose keys and values are made of the latents, then a gated inner layer, both added to what
came in, both behind a layer norm. As the latents are fixed, what they are multiplied with is multiplied once, when the
model loads: of queries and keys one matrix [width, heads * latents] is left, of values and output another. That is
8 times less work for a token than the published shape, 8 heads of 4096, and as much less memory.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.classifier_heads import Norm
from sie_server.adapters.shared.linear import Dense
from sie_server.core.lifecycle import ErrorClass

PREFIX: Final = "latent_attention_model."
HEADS: Final = 8  # of the published class, where a configuration does not say
NORM_EPS: Final = 1e-5
TOKENS_AT_ONCE: Final = 2048  # the inner layer is eight times as wide as its input


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """`scores` [width, heads * latents] and `answers` [heads * latents, width]; the inner layer is `up` and `down`."""

    heads: int
    norm: Norm
    scores: torch.Tensor
    answers: torch.Tensor
    inner_norm: Norm
    up: Dense
    down: Dense

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """[tokens, width] to the same."""
        return torch.cat([self._some(part) for part in torch.split(states, TOKENS_AT_ONCE)])

    def _some(self, states: torch.Tensor) -> torch.Tensor:
        by_head = (self.norm(states) @ self.scores).view(len(states), self.heads, -1)
        weights = by_head.float().softmax(-1).to(states.dtype)
        seen = states + weights.view(len(states), -1) @ self.answers
        value, gate = self.up(self.inner_norm(seen)).chunk(2, -1)
        return seen + self.down(value * functional.gelu(gate))


def read_latent_attention(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], width: int, device: str, dtype: torch.dtype
) -> LatentAttention | None:
    """The latent attention of a checkpoint, under the names of NV-Embed's; None when it has none.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    if not any(name.startswith(PREFIX) for name in tensors):
        return None
    get = Checkpoint(tensors, lambda name: name.removeprefix(PREFIX), device).get
    across, inner = "cross_attend_blocks.0", "cross_attend_blocks.1"

    def norm(name: str) -> Norm:
        weight, bias = (get(f"{name}.{part}", width, dtype=dtype) for part in ("weight", "bias"))
        return Norm(weight, bias, NORM_EPS)

    heads = int((config.get("latent_attention_config") or {}).get("num_cross_heads") or HEADS)
    raw = get("latents", dtype=dtype)
    if raw.ndim != 2 or raw.shape[1] != width:  # noqa: PLR2004 - a matrix
        message = f"the latents have shape {tuple(raw.shape)}, the encoder {width} components"
        raise LoadError(ErrorClass.UNKNOWN, message)
    latents = norm(f"{across}.norm_context")(raw).float()
    queries = get(f"{across}.fn.to_q.weight", dtype=dtype)
    size, left = divmod(len(queries), heads)
    if left:
        raise LoadError(ErrorClass.UNKNOWN, f"{len(queries)} components of latent attention are no {heads} heads")
    both = get(f"{across}.fn.to_kv.weight", 2 * heads * size, width, dtype=dtype)
    out = get(f"{across}.fn.to_out.weight", width, heads * size, dtype=dtype)
    keys, values = both.chunk(2)
    scores, answers = [], []
    for at in range(heads):  # one head at a time: in float32 all of them would take gigabytes
        own = slice(at * size, (at + 1) * size)
        scores.append(queries[own].float().t() @ (latents @ keys[own].float().t()).t() / math.sqrt(size))
        answers.append(latents @ values[own].float().t() @ out[:, own].float().t())
    wide = get(f"{inner}.fn.net.0.weight", dtype=dtype)
    half = len(wide) // 2
    return LatentAttention(
        heads,
        norm(f"{across}.norm"),
        torch.cat(scores, 1).to(dtype),
        torch.cat(answers).to(dtype),
        norm(f"{inner}.norm"),
        Dense(wide, get(f"{inner}.fn.net.0.bias", 2 * half, dtype=dtype)),
        Dense(
            get(f"{inner}.fn.net.2.weight", width, half, dtype=dtype),
            get(f"{inner}.fn.net.2.bias", width, dtype=dtype),
        ),
    )
