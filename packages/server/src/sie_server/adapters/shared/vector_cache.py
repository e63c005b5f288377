"""A cache of vectors of texts that are asked for again and again: the labels of a client that sends many inputs."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.shared.chunks import chunks

Key = tuple[int, ...]  # the token ids of a text
SIZE: Final = 4096  # texts: four requests of as many labels as one may have; 8 MiB of vectors of 512 components


class VectorCache:
    """The vectors of the texts that were asked for last; may be used by several threads at once.

    `compute` gives [texts, width] for arrays of token ids, at most `limit` tokens at a time.
    """

    def __init__(self, compute: Callable[[Sequence[Array]], torch.Tensor], limit: int, size: int = SIZE) -> None:
        self._compute = compute
        self._limit = limit
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Key, torch.Tensor] = OrderedDict()

    def missing_tokens(self, keys: Iterable[Key]) -> int:
        """How many tokens would be computed for these now."""
        with self._lock:
            return sum(len(key) for key in keys if key not in self._vectors)

    def of(self, keys: Sequence[Key]) -> torch.Tensor:
        """[texts, width]; what the cache lacks is computed, each text once."""
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        for places in chunks([len(key) for key in missing], self._limit):
            computed = self._compute([np.array(missing[at], np.int64) for at in places])
            # Copies: a view would keep the vectors of everything that was computed with it.
            known |= {missing[at]: vector.clone() for at, vector in zip(places, computed, strict=True)}
        self._keep({key: known[key] for key in keys})
        return torch.stack([known[key] for key in keys])

    def _keep(self, used: dict[Key, torch.Tensor]) -> None:
        with self._lock:
            for key, vector in used.items():
                self._vectors.setdefault(key, vector)
                self._vectors.move_to_end(key)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
