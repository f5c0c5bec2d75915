"""What `gnflow run` sets in the C library, seen from the page faults of a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.train.allocator import OVERCOMMIT

ROUNDS = 20
FAULTS = f"""
import resource, sys
from gnflow.train import allocator

kept = allocator.keep_memory() if sys.argv[1] == "keep" else False

def allocate():
    several = [bytes([1]) * 2**26, bytes([1]) * 2**23]

allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    allocate()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / {ROUNDS})
"""


FLAGS = """
import ctypes, sys, resource
from gnflow.train import allocator

if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))
kept = allocator.keep_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
address, flags, found = library.malloc(ctypes.c_size_t(2**26)) + 2**25, None, False  # in the middle of a block
for line in open("/proc/self/smaps"):
    first, *rest = line.split()
    if "-" in first and not first.endswith(":"):
        start, end = (int(each, 16) for each in first.split("-"))
        found = start <= address < end
    elif first == "VmFlags:" and found:
        flags = rest
print(kept, "hg" in flags)
"""


def count_faults(word: str, **environment: str) -> tuple[bool, float]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, word], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", float(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of Linux")
def test_freed_memory_is_used_again_without_a_page_fault() -> None:
    kept, faults = count_faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert faults < 100 < count_faults("default")[1]


def test_settings_of_the_user_stay_as_they_are() -> None:
    assert count_faults("keep", MALLOC_ARENA_MAX="2")[0] is False
    assert count_faults("keep", GLIBC_TUNABLES="glibc.malloc.perturb=1")[0] is False


def ask_for_huge_pages(word: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FLAGS, word], env=clean, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or OVERCOMMIT.read_text().strip() == "2",
    reason="this kernel has no huge pages, or counts addresses as memory",
)
def test_large_blocks_may_lie_in_huge_pages_unless_addresses_are_limited() -> None:
    kept, huge = ask_for_huge_pages("free")
    if kept != "True":
        pytest.skip("this C library has no mallopt")
    assert huge == "True"
    assert ask_for_huge_pages("limited") == ["True", "False"]
