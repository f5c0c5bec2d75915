"""One arm at one target: a cost for each seed, with a miss as infinity, and the median."""

from math import inf
from typing import NamedTuple

import numpy as np

from gnflow.study.arms import Arm
from gnflow.study.scores import COLUMNS, Score, score


class Result(NamedTuple):
    """One arm at one target."""

    arm: str
    target: float
    scores: tuple[Score, ...]
    """One for each run of the arm, in the order of its seeds."""
    needed: dict[str, tuple[float, ...]]
    """Axis (those of COLUMNS) -> a cost for each seed; infinite where the target was missed."""
    median: dict[str, float]
    """Axis -> median over the seeds; infinite when half of them or more missed."""
    reached: int
    """How many seeds reached the target."""

    @property
    def missed(self) -> int:
        """How many seeds did not reach it."""
        return len(self.scores) - self.reached


def result(arm: Arm, target: float) -> Result:
    """The scores of an arm's runs, summed up."""
    scores = tuple(score(run, label, target) for run, label in zip(arm.runs, arm.labels, strict=True))
    needed = {axis: tuple(s.needed[axis] if s.needed else inf for s in scores) for axis in COLUMNS}
    medians = {axis: float(np.median(costs)) for axis, costs in needed.items()}
    return Result(arm.name, target, scores, needed, medians, sum(s.needed is not None for s in scores))
