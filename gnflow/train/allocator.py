"""Keep memory that was freed in the process, so that the next step does not ask the system for it again.

By default the C library of Linux hands blocks above some size back at once. The kernel must then clear their pages
again for every large tensor of every step.
"""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST = 2**31 - 1


def keep_memory() -> bool:
    """Tell the C library to keep freed memory, and return whether it does. Settings of the user stay as they are.

    Call it before the first large allocation. It has no effect on the memory of a GPU.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # only in glibc
    return set_option is not None and all(
        set_option(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST))
    )
