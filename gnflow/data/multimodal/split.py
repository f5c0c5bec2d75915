"""Rows of one split of images and text, memory-mapped."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnflow.data.multimodal.samples import Pixels
from gnflow.data.multimodal.write import TASKS
from gnflow.groups import Task


@dataclass(frozen=True)
class Split:
    """The rows of one split. Those of one task are adjacent."""

    ids: NDArray[np.integer]
    groups: NDArray[np.uint8]
    tasks: NDArray[np.uint8]
    patches: NDArray[np.uint32] | None
    pixels: Pixels | None

    def find_rows(self, task: Task) -> slice:
        """Return the slice of the rows of a task."""
        number = TASKS.index(task)
        first, last = np.searchsorted(self.tasks, [number, number + 1])
        return slice(int(first), int(last))

    def gather(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """Return these rows as int64 [*numbers, context + 1, channels]: id, group and pixel values of each token."""
        ids = np.asarray(self.ids)[numbers]
        values = 0 if self.pixels is None else self.pixels.shape[1]
        found = np.zeros((*ids.shape, 2 + values), dtype=np.int64)
        found[..., 0], found[..., 1] = ids, np.asarray(self.groups)[numbers]
        if self.patches is not None and self.pixels is not None:
            patches = np.asarray(self.patches)[numbers]
            read = patches > 0
            found[read, 2:] = self.pixels[patches[read] - 1]
        return torch.from_numpy(found)
