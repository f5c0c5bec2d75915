"""Time and peak memory of the region `curved` in parts of `gradient`'s; writes curved.json and curved.md.

Both are compiled, with plain attention and the same weights and tokens. Every measurement has a process of its own.
Memory is the kernel's count of what was resident at the highest point of one call (VmHWM, reset before it), less what
was resident before; blocks go back to the system when they are freed, so that nothing old is counted.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import machine, quartiles, timed  # noqa: E402  # a script's neighbour

from gnflow import trees  # noqa: E402  # after the path
from gnflow.compiler.plan import plan  # noqa: E402
from gnflow.compiler.program import compile as make_program  # noqa: E402
from gnflow.spec.experiment import Experiment  # noqa: E402

RUNS = 15
REGIONS = ("curved", "gradient")
# Blocks above this are mapped, and unmapped when freed.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class Size(NamedTuple):
    """A decoder and its micro-batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    rows: int
    context: int

    def __str__(self) -> str:
        return (
            f"{self.layers} x {self.width}, {self.heads} heads, {self.vocabulary} words, {self.rows} x {self.context}"
        )


SMALL = Size(4, 256, 4, 2048, 8, 128)
LARGE = Size(4, 256, 4, 32000, 8, 1024)
# (size, threads or none where time is not measured, times aimed at, memory aimed at)
TIMES = ((SMALL, 1, 1.45), (SMALL, 2, 1.45))
MEMORIES = ((SMALL, 1.6), (LARGE, 1.25))


def main(folder: Path = HERE, times: object = TIMES, memories: object = MEMORIES, runs: int = RUNS) -> None:
    """Every measurement in turn, each in a fresh process."""
    result = {
        "machine": machine(),
        "time": [_child("time", size, threads, runs) | {"target": target} for size, threads, target in times],  # type: ignore[attr-defined]
        "memory": [_compared(size, target) for size, target in memories],  # type: ignore[attr-defined]
    }
    (folder / "curved.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "curved.md").write_text(report(result))
