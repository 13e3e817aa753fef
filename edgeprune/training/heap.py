"""Memory that torch frees on the CPU and asks for again in the next step."""

from __future__ import annotations

import ctypes
import platform

# Of malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees for its own next request, and say whether it does.

    As it is, glibc hands blocks of over 32 MB back to the system when they are freed, and the top of its heap; a
    training step, which frees and asks for the same activations again, then has each page mapped and cleared anew.
    `python -m benchmarks.training`, with and without --usual-heap, shows what that takes. The price: the process holds
    the most it ever held until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_MAX, 0))
