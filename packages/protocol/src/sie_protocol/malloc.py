"""What malloc does with freed memory. Only glibc can be told; elsewhere nothing happens."""

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8


def mallopt(option: int, value: int) -> None:
    """Set an option of malloc that is named above; before threads start. See the manual page of that name."""
    if sys.platform == "linux":
        own = getattr(ctypes.CDLL(None), "mallopt", None)
        if own is not None:
            own(option, value)
