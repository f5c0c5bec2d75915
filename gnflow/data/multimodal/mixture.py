"""Micro-batches in which the rows of each task stand in the ratio of the mix.

Positions 0, 1, 2, ... of an endless sequence of rows are given to the tasks in a pattern that repeats every
`sum(mix)` positions; in any stretch of it a task falls behind its share by less than a row. The rows of one task follow
each other in shuffled epochs, as those of a text do (gnflow.data.batches).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnflow.data.batches import shuffle
from gnflow.data.multimodal.split import Split
from gnflow.data.multimodal.write import TASKS
from gnflow.errors import DataError
from gnflow.groups import Task
from gnflow.spec.multimodal import Mix

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class MixedBatches:
    """Micro-batches by number. Number n takes positions n * rows ... of the endless sequence."""

    split: Split
    rows: int
    mix: Mix
    seed: int
    stream: str = "train"

    def find_rows(self, first: int, count: int) -> Numbers:
        """Return the row of the split behind each row of micro-batches first ... first + count - 1: [count, rows]."""

        def find_places(task: Task, turns: Numbers) -> Numbers:
            size = _count_rows(self.split, task)
            epochs, places = np.divmod(turns.astype(np.uint64), np.uint64(size))
            return shuffle(places, epochs, size, self.seed, f"{self.stream}/{task}").astype(np.int64)

        return _list_rows(self.split, self.mix, self.rows, first, count, find_places)

    def take(self, first: int, count: int) -> torch.Tensor:
        """Return micro-batches first ... first + count - 1 as int64 [count, rows, context + 1, channels]."""
        return self.split.gather(self.find_rows(first, count))


def take_held_out(split: Split, rows: int, mix: Mix, count: int) -> torch.Tensor:
    """Return the first count * rows rows, each task's in order, int64 [count, rows, context + 1, channels].

    A task whose rows are used up begins again.
    """
    return split.gather(list_held_out_rows(split, rows, mix, count))


def list_held_out_rows(split: Split, rows: int, mix: Mix, count: int) -> Numbers:
    """List the row behind each row of `take_held_out`: [count, rows]."""
    return _list_rows(split, mix, rows, 0, count, lambda task, turns: turns % _count_rows(split, task))


def count_microbatches(split: Split, rows: int, mix: Mix) -> int:
    """Count the micro-batches of `take_held_out` before a row comes again; at least 1."""
    weights = _list_weights(mix)
    turns = min(_count_rows(split, task) // weight for task, weight in weights.items() if weight)
    return max(turns * sum(weights.values()) // rows, 1)


def make_pattern(weights: dict[Task, int]) -> NDArray[np.int64]:
    """Return the places in TASKS of one period: at every position the task that is furthest behind its share."""
    total = sum(weights.values())
    owed = np.zeros(len(TASKS), dtype=np.int64)
    shares = np.array([weights[task] for task in TASKS])
    found = []
    for _ in range(total):
        owed += shares
        found.append(int(owed.argmax()))
        owed[found[-1]] -= total
    return np.array(found)


def _list_rows(
    split: Split, mix: Mix, rows: int, first: int, count: int, order: Callable[[Task, Numbers], Numbers]
) -> Numbers:
    weights = _list_weights(mix)
    period = make_pattern(weights)
    positions = np.arange(first * rows, (first + count) * rows)
    periods, places = np.divmod(positions, len(period))
    found = np.empty_like(positions)
    for number, task in enumerate(TASKS):
        if not weights[task]:
            continue
        own = period == number
        mine = own[places]
        turns = periods[mine] * weights[task] + (own.cumsum() - 1)[places[mine]]
        found[mine] = split.find_rows(task).start + order(task, turns)
    return found.reshape(count, rows)


def _list_weights(mix: Mix) -> dict[Task, int]:
    return {"text": mix.text, "understanding": mix.understanding, "generation": mix.generation}


def _count_rows(split: Split, task: Task) -> int:
    """Count the rows of a task. Raises DataError if there are none."""
    rows = split.find_rows(task)
    if rows.start == rows.stop:
        raise DataError(
            f"data.mix asks for rows of {task}, and no caption has any text\nset it to 0, or give data.text"
        )
    return int(rows.stop - rows.start)
