"""Memory that each thread keeps between batches: allocating it anew costs page faults on every batch."""

import threading
from dataclasses import dataclass

import torch

BUFFER_STEP_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Buffers:
    """Memory of one thread for the largest batch it has seen: [tokens, ...] each."""

    qkv: torch.Tensor
    context: torch.Tensor
    inner: torch.Tensor


class ThreadBuffers:
    """`Buffers` of the calling thread, grown as needed. The widths are in components per token."""

    def __init__(self, device: str, *, qkv: int, context: int, inner: int) -> None:
        self._device = device
        self._widths = (qkv, context, inner)
        self._local = threading.local()

    def of(self, tokens: int, dtype: torch.dtype) -> Buffers:
        """Room for at least this many tokens."""
        buffers: Buffers | None = getattr(self._local, "buffers", None)
        if buffers is not None and len(buffers.qkv) >= tokens:
            return buffers
        rows = -(-tokens // BUFFER_STEP_TOKENS) * BUFFER_STEP_TOKENS
        grown = Buffers(*(torch.empty(rows, width, dtype=dtype, device=self._device) for width in self._widths))
        self._local.buffers = grown
        return grown
