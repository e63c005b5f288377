"""Which device this machine has, and how full its memory is. Imports torch only where an accelerator may be."""

import importlib.util
import sys
from pathlib import Path
from typing import Final

import numpy as np

from sie_protocol.status import GpuStatus

# Present when a driver of an accelerator is loaded; only then is it worth asking torch, which takes seconds to import.
DRIVER_FILES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
CPU_ALLOCATOR: Final = "DefaultCPUAllocator: can't allocate memory"


def choose(wanted: str) -> str:
    """The kind of device behind `auto`, `cpu`, `cuda` or `mps`. May import torch: not for the event loop.

    Raises:
        ValueError: torch cannot compute on the one that is wanted.
    """
    if wanted not in ("auto", "cpu"):
        _check(wanted)
    if wanted != "auto":
        return wanted
    possible = sys.platform == "darwin" or any(Path(file).exists() for file in DRIVER_FILES)
    if not possible or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch  # noqa: PLC0415 - seconds of import that a machine without an accelerator does not pay

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check(wanted: str) -> None:
    try:
        import torch  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ValueError(f"device '{wanted}' needs torch, which is not installed; install sie-server[torch]") from error
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(wanted)
    if backend is None:
        raise ValueError(f"device '{wanted}' does not exist; choose auto, cpu, cuda or mps")
    if not backend.is_available():
        raise ValueError(f"torch {torch.__version__} finds no device '{wanted}' on this machine; choose auto or cpu")


def memory(kind: str) -> tuple[GpuStatus, ...]:
    """Name and memory of each accelerator; empty for a CPU, and for one that does not answer."""
    if kind != "cuda":
        return ()
    import torch  # noqa: PLC0415 - loaded already: the device was chosen by asking it

    try:
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
    except RuntimeError:  # it failed; the self-test says so where it counts
        return ()
    return (GpuStatus(device="cuda:0", name=name, memory_used_bytes=total - free, memory_total_bytes=total),)


def read_memory(kind: str) -> tuple[int, int] | None:
    """Bytes in use and bytes there are on an accelerator; what torch only keeps for later is free.

    None for a CPU, and for an accelerator that does not answer.
    """
    if kind not in ("cuda", "mps"):
        return None
    import torch  # noqa: PLC0415 - loaded already: the device was chosen by asking it

    if kind == "mps":
        return torch.mps.current_allocated_memory(), torch.mps.recommended_max_memory()
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:
        return None
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return total - free - cached, total


def empty_caches(kind: str) -> None:
    """Give what torch keeps for later back to the accelerator."""
    if kind not in ("cuda", "mps"):
        return
    import torch  # noqa: PLC0415 - the same

    (torch.cuda if kind == "cuda" else torch.mps).empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a batch or a load failed for lack of memory, told by the error's type.

    On a CPU torch has no type for it: there its allocator's name in the message has to do.
    """
    if type(error) is RuntimeError:
        return CPU_ALLOCATOR in str(error)
    torch = sys.modules.get("torch")
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def self_test(kind: str) -> None:
    """Have the device compute a tiny product.

    Raises:
        RuntimeError: the device failed, or the product is wrong.
    """
    if kind == "cpu":
        found = float((np.ones((8, 8), np.float32) @ np.ones((8, 8), np.float32)).sum())
    else:
        import torch  # noqa: PLC0415 - the same

        ones = torch.ones(8, 8, device=kind)
        found = float((ones @ ones).sum())
    if found != 8.0**3:
        raise RuntimeError(f"the {kind} device says that 8 x 8 x 8 is {found}")
