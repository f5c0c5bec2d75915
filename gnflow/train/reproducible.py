"""Set torch up so that the same step gives the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

from gnflow.compiler import toolchain
from gnflow.workspace import Workspace

FILL = "fill_uninitialized_memory"


@contextmanager
def make_reproducible(workspace: Workspace) -> Iterator[None]:
    """Use deterministic kernels if there are any, and keep compiled graphs in the workspace, until the block ends."""
    toolchain.settle(workspace)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_deterministic_debug_mode()
    fill = getattr(deterministic, FILL)
    benchmark = torch.backends.cudnn.benchmark
    # `torch.use_deterministic_algorithms` would import Inductor, which is told when a region is compiled.
    torch.set_deterministic_debug_mode("warn")
    setattr(deterministic, FILL, False)  # filling would write every new tensor twice
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        setattr(deterministic, FILL, fill)
        torch.backends.cudnn.benchmark = benchmark
