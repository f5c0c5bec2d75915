"""The held-out loss of arms at equal budgets: what there is to compare by where runs have no target in common.

The budget of an axis is the largest that every run has reached: the least of what the runs had spent at their last
evaluation. The loss of a run is that of its last evaluation within the budget; nothing is interpolated. Differences are
paired by seed and in nats.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from gnflow.study.arms import Arm
from gnflow.study.intervals import Interval, bootstrap, sign_flip_test, t_interval, t_test
from gnflow.study.scores import METRIC, costs
from gnflow.train.run import Run

FIRST = ("tokens", "flops", "passes", "seconds", "steps")  # the first of these that is recorded chooses the reference
Course = Sequence[tuple[Mapping[str, float], float]]  # (costs, held-out loss) of every evaluation of a run


class Reached(NamedTuple):
    """One arm within one budget."""

    arm: str
    losses: dict[int, float]
    """Seed -> held-out loss."""
    spent: dict[int, float]
    """Seed -> what the evaluation had cost, at most the budget."""
    steps: dict[int, float]
    """Seed -> its step."""

    @property
    def median(self) -> float:
        """Of the losses."""
        return median(self.losses.values())


class Difference(NamedTuple):
    """The loss of another arm less that of the reference: above 0 where the reference is better."""

    other: str
    seeds: tuple[int, ...]
    """Those of both arms."""
    mean: float
    interval: Interval | None
    """95 %, of Student's t; None with one seed."""
    bootstrap: Interval | None
    p_value: float | None
    p_sign_flip: float | None


class Budget(NamedTuple):
    """All arms at the same cost on one axis."""

    axis: str
    amount: float
    arms: tuple[Reached, ...]
    differences: tuple[Difference, ...]
    """Every other arm against the reference, where they have a seed in common."""


def unusable(arms: Sequence[Arm]) -> tuple[str, ...]:
    """The labels of runs that have no evaluation after their first step: they have reached no budget."""
    return tuple(
        label
        for arm in arms
        for run, label in zip(arm.runs, arm.labels, strict=True)
        if not any(spent["steps"] for spent, _ in _course(run))
    )


def budgets(arms: Sequence[Arm], axes: Sequence[str], reference: str | None) -> tuple[str | None, tuple[Budget, ...]]:
    """(reference, a budget for each axis that all runs record); none where a run has not got beyond its start.

    The reference is, unless named, the arm with the lowest median loss at equal tokens.
    """
    courses = {arm.name: {run.experiment.training.seed: _course(run) for run in arm.runs} for arm in arms}
    if not all(course for runs in courses.values() for course in runs.values()):
        return reference, ()
    amounts = {axis: min(course[-1][0][axis] for runs in courses.values() for course in runs.values()) for axis in axes}
    reached = {
        axis: tuple(_reached(name, runs, axis, amount) for name, runs in courses.items())
        for axis, amount in amounts.items()
        if amount > 0
    }
    if not reached:
        return reference, ()
    first = reached[headline(reached)]
    chosen = reference or min(first, key=lambda arm: arm.median).arm
    return chosen, tuple(
        Budget(axis, amounts[axis], found, _differences(found, chosen)) for axis, found in reached.items()
    )


def headline(axes: Collection[str]) -> str:
    """The axis that is spoken of first."""
    return next(axis for axis in FIRST if axis in axes)


def _course(run: Run) -> Course:
    rows = [row for row in run.metrics.to_dicts() if row.get(METRIC) is not None]
    return [(costs(run, row), row[METRIC]) for row in rows]


def _reached(name: str, runs: Mapping[int, Course], axis: str, amount: float) -> Reached:
    """The starting weights have cost nothing, so there is an evaluation within any budget."""
    last = {seed: [each for each in course if each[0][axis] <= amount][-1] for seed, course in runs.items()}
    return Reached(
        name,
        {seed: loss for seed, (_, loss) in last.items()},
        {seed: spent[axis] for seed, (spent, _) in last.items()},
        {seed: spent["steps"] for seed, (spent, _) in last.items()},
    )


def _differences(arms: Sequence[Reached], reference: str) -> tuple[Difference, ...]:
    mine = next(arm.losses for arm in arms if arm.arm == reference)
    return tuple(_difference(arm, mine) for arm in arms if arm.arm != reference and mine.keys() & arm.losses.keys())


def _difference(other: Reached, mine: Mapping[int, float]) -> Difference:
    seeds = tuple(sorted(mine.keys() & other.losses.keys()))
    values = [other.losses[seed] - mine[seed] for seed in seeds]
    several = len(values) > 1
    return Difference(
        other.arm,
        seeds,
        fmean(values),
        t_interval(values, values) if several else None,
        bootstrap(values, values) if several else None,
        t_test(values) if several else None,
        sign_flip_test(values) if several else None,
    )
