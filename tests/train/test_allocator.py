"""What `gnflow run` sets in the C library, seen from the page faults of a process of its own."""

import os
import subprocess
import sys

import pytest

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
