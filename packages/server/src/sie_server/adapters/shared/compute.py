"""How torch computes: in which precision, on how many CPU threads."""

import threading
from typing import Final

import torch

from sie_server.adapters.base import LoadError, ModelSpec
from sie_server.core.lifecycle import ErrorClass

PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def precision(spec: ModelSpec, device: str) -> torch.dtype:
    """The dtype of a model's weights: float32 on a CPU, else what the catalogue says, else float16.

    Raises:
        LoadError: there is no such precision.
    """
    if device == "cpu":
        return torch.float32
    wanted = spec.precision or "float16"
    if wanted not in PRECISIONS:
        raise LoadError(ErrorClass.UNKNOWN, f"compute_precision '{wanted}' is unknown; known: {', '.join(PRECISIONS)}")
    return PRECISIONS[wanted]


class CpuThreads:
    """Sets how many threads torch uses for the calling thread, which costs nothing while the number stays."""

    def __init__(self) -> None:
        self._local = threading.local()

    def use(self, count: int) -> None:
        """From now on, in this thread only."""
        if getattr(self._local, "count", None) != count:
            torch.set_num_threads(count)
            self._local.count = count
