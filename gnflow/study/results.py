"""The result of one arm at one target: a cost for each seed (infinite for a miss), and the median."""

from math import inf
from typing import NamedTuple

import numpy as np

from gnflow.study.arms import Arm
from gnflow.study.scores import COLUMNS, Score, score_run


class Result(NamedTuple):
    """The result of one arm at one target."""

    arm: str
    target: float
    scores: tuple[Score, ...]
    """The score of each run of the arm, in the order of its seeds."""
    needed: dict[str, tuple[float, ...]]
    """Cost for each seed, by axis of COLUMNS; infinite if the target was missed."""
    median: dict[str, float]
    """Median over the seeds, by axis; infinite if at least half of them missed."""
    reached: int
    """Number of seeds that reached the target."""

    @property
    def misses(self) -> int:
        """The number of seeds that did not reach the target."""
        return len(self.scores) - self.reached


def summarise_arm(arm: Arm, target: float) -> Result:
    """Summarise the scores of the runs of an arm."""
    scores = tuple(score_run(run, label, target) for run, label in zip(arm.runs, arm.labels, strict=True))
    needed = {axis: tuple(s.needed[axis] if s.needed else inf for s in scores) for axis in COLUMNS}
    medians = {axis: float(np.median(costs)) for axis, costs in needed.items()}
    return Result(arm.name, target, scores, needed, medians, sum(s.needed is not None for s in scores))
