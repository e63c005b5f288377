"""What the C library does with freed memory. Only glibc can be told; elsewhere nothing happens."""

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8


def tell_heap(option: int, value: int) -> None:
    """mallopt(3), with a name above; before threads start."""
    if sys.platform == "linux":
        tell = getattr(ctypes.CDLL(None), "mallopt", None)
        if tell is not None:
            tell(option, value)
