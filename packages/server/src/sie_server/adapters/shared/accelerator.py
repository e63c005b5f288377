"""Which device this machine has, and how full its memory is. Imports torch only where an accelerator may be."""

import importlib.util
import sys
from pathlib import Path
from typing import Final

from sie_protocol.status import GpuStatus

# Present when a driver of an accelerator is loaded; only then is it worth asking torch, which takes seconds to import.
DRIVER_FILES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def choose(wanted: str) -> str:
    """The kind of device behind `auto`, `cpu`, `cuda` or `mps`. May import torch: not for the event loop."""
    if wanted != "auto":
        return wanted
    possible = sys.platform == "darwin" or any(Path(file).exists() for file in DRIVER_FILES)
    if not possible or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch  # noqa: PLC0415 - seconds of import that a machine without an accelerator does not pay

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def memory(kind: str) -> tuple[GpuStatus, ...]:
    """Name and memory of each accelerator; empty for a CPU."""
    if kind != "cuda":
        return ()
    import torch  # noqa: PLC0415 - loaded already: the device was chosen by asking it

    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return (GpuStatus(device="cuda:0", name=name, memory_used_bytes=total - free, memory_total_bytes=total),)
