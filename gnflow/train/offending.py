"""Keep the batch of a failed step in the run directory, so that the user can look at it.

offending/step_00000012/batch.safetensors   tokens, numbers of its micro-batches and of their rows in the data,
                                                which (micro-batch, row) are to blame
offending/step_00000012/batch.json          what went wrong and where; the rows to blame as text
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from gnflow.data.microbatches import Microbatches
from gnflow.train import disk
from gnflow.train.divergence import Cause

OFFENDING, BATCH, WORDS = "offending", "batch.safetensors", "batch.json"  # name of the folder in the run directory

Read = Callable[[Tensor], str]
"""A function from a row of a micro-batch to its text."""


def write(
    directory: Path, step: int, problem: str, cause: Cause, batches: Microbatches, first: int, count: int, read: Read
) -> Path:
    """Write the micro-batches of a step: `count` of them from number `first` on. Raises DiskProblem."""
    path = directory / OFFENDING / f"step_{step:08d}"
    tokens = batches.take(first, count)
    tensors = {
        "tokens": tokens,
        "microbatches": torch.arange(first, first + count),
        "rows": torch.from_numpy(batches.find_rows(first, count)),
        # These are not metadata of the file, because safetensors writes metadata in a different order every time.
        "step": torch.tensor(step),
        "to_blame": torch.tensor([[cause.microbatch, row] for row in cause.rows], dtype=torch.int64).view(-1, 2),
    }
    disk.write(path / BATCH, save(tensors))
    found = {
        "step": step,
        "problem": problem,
        "cause": cause.words,
        "microbatch": cause.microbatch,
        "rows": [
            {"row": row, "in_the_data": number, "text": read(tokens[cause.microbatch - first, row])}
            for row, number in zip(cause.rows, cause.row_numbers, strict=True)
        ],
    }
    disk.write_json(path / WORDS, found)
    return path
