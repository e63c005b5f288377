"""How adapters use torch: which dtype on which device, how many threads, and how arrays get onto the device."""

import threading
from typing import Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def precision(wanted: str | None, device: str) -> torch.dtype:
    """The dtype of weights: float32 on a CPU, elsewhere what the catalogue wants, by default float16.

    Raises:
        LoadError: UNKNOWN when there is no such precision.
    """
    if device == "cpu":
        return torch.float32
    name = wanted or "float16"
    if name not in PRECISIONS:
        message = f"compute_precision '{name}' is unknown; known: {', '.join(PRECISIONS)}"
        raise LoadError(ErrorClass.UNKNOWN, message)
    return PRECISIONS[name]


def use_threads(memory: threading.local, threads: int) -> None:
    """Have the calling thread compute with so many threads; `memory` spares it to say so before every batch."""
    if getattr(memory, "count", None) != threads:
        torch.set_num_threads(threads)  # of the calling thread only
        memory.count = threads


def to_device(array: Array, device: str | torch.device) -> torch.Tensor:
    """The array on a device; a CPU shares its memory.

    To a GPU it goes by way of pinned memory, which the copy reads while the host goes on: a copy of ordinary memory
    waits for everything that the device was given before.
    """
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
