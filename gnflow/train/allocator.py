"""Keep memory that was freed in the process, so that the next step does not ask the system for it again.

By default the C library of Linux hands blocks above some size back at once. The kernel must then clear their pages
again for every large tensor of every step. So freed blocks are kept, and the heap is told to consist of huge pages:
with pages of 4 KiB, some processes took 1.3 times as long on two threads (docs/performance.md).
"""

import ctypes
import mmap
import os
import sys
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX, NEVER = -1, -4, -1
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def keep_memory() -> bool:
    """Tell the C library to keep freed memory, and return whether it does. Settings of the user stay as they are.

    It also asks for huge pages where the kernel has them and addresses are not limited. Call it before the first
    large allocation. It has no effect on the memory of a GPU.
    """
    is_set = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or is_set or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # only in glibc
    kept = set_option is not None and all(
        set_option(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER))
    )
    if kept and _is_address_space_free():
        _prefer_huge_pages()
    return kept


def _is_address_space_free() -> bool:
    """Tell whether addresses without memory behind them count against no limit."""
    import resource

    limits = (resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        strict = OVERCOMMIT.read_text().strip() == "2"
    except OSError:
        return False
    return not strict and all(limit == resource.RLIM_INFINITY for limit in limits)


@cache
def _prefer_huge_pages() -> None:
    """Let the heap grow by half of the machine's memory, and ask for huge pages there, once in a process.

    These are addresses alone: memory is behind them when they are first written to. What is freed stays in the heap, so
    later blocks lie there.
    """
    library = ctypes.CDLL(None)
    size = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = library.malloc(size)
    if block:
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(start, block + size - start, mmap.MADV_HUGEPAGE)
        library.free(block)
