"""Vectors of texts that are asked for again and again, such as the labels of a client that sends many images."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import torch

Key = tuple[int, ...]  # the token ids of a text
LIMIT: Final = 4096  # texts; 8 MiB of vectors of 512 components


class Remembered:
    """The vectors of the texts that were asked for last; may be used by several threads at once."""

    def __init__(self, compute: Callable[[Sequence[Key]], torch.Tensor], limit: int = LIMIT) -> None:
        self._compute = compute
        self._limit = limit
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Key, torch.Tensor] = OrderedDict()

    def of(self, keys: Sequence[Key]) -> torch.Tensor:
        """[texts, width]; those that are not remembered are computed in one call, each once."""
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            # Copies: a view would keep the vectors of everything that was computed with it.
            computed = (vector.clone() for vector in self._compute(missing).unbind())
            known.update(zip(missing, computed, strict=True))
        self._remember({key: known[key] for key in keys})
        return torch.stack([known[key] for key in keys])

    def _remember(self, used: dict[Key, torch.Tensor]) -> None:
        with self._lock:
            for key, vector in used.items():
                self._vectors.setdefault(key, vector)
                self._vectors.move_to_end(key)
            while len(self._vectors) > self._limit:
                self._vectors.popitem(last=False)
