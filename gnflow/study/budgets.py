"""Compare the held-out loss of arms at equal budgets, for runs that have no target in common.

The budget of an axis is the largest one that every run has reached: the minimum of the costs of the runs at their last
evaluations. The loss of a run is that of its last evaluation within the budget, without interpolation. Differences are
paired by seed and in nats.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from gnflow.study.arms import Arm
from gnflow.study.below import Below
from gnflow.study.intervals import Interval, bootstrap_mean, compute_t_interval, run_sign_flip_test, run_t_test
from gnflow.study.scores import METRIC, read_costs
from gnflow.study.token_ratio import TokenRatio
from gnflow.train.run import Run

# The reference is chosen by the first of these axes that is recorded.
FIRST = ("tokens", "flops", "passes", "seconds", "steps")
Course = Sequence[tuple[Mapping[str, float], float]]  # (costs, held-out loss) of every evaluation of a run


class BudgetResult(NamedTuple):
    """The losses and costs of one arm within one budget."""

    arm: str
    losses: dict[int, float]
    """Held-out loss by seed."""
    spent: dict[int, float]
    """Cost at the evaluation by seed, which is at most the budget."""
    steps: dict[int, float]
    """Step of the evaluation by seed."""

    @property
    def median(self) -> float:
        """The median of the losses."""
        return median(self.losses.values())


class Difference(NamedTuple):
    """The loss of another arm minus that of the reference, which is above 0 if the reference is better."""

    other: str
    seeds: tuple[int, ...]
    """The seeds that both arms have or, if the standard deviation over seeds is known, those of either."""
    mean: float
    interval: Interval | None
    """95 % interval of Student's t, or of the normal distribution if the standard deviation over seeds is known; None
    with one seed, unless it is known."""
    bootstrap: Interval | None
    """95 % percentile interval over resampled seeds; None with one seed, or in a z-test."""
    p_value: float | None
    """Two-sided, paired t-test, or z-test of the means if the standard deviation over seeds is known."""
    p_sign_flip: float | None
    """Two-sided sign-flip test; None with one seed, or in a z-test."""
    token_ratio: TokenRatio | None = None
    """Tokens that the reference would need for the loss of the other arm; only at the end of schedules."""


class Budget(NamedTuple):
    """All arms at the same cost on one axis."""

    axis: str
    amount: float
    arms: tuple[BudgetResult, ...]
    differences: tuple[Difference, ...]
    """The difference of every other arm from the reference, if they have a seed in common."""
    tests: tuple[Below, ...] = ()
    """The test of every arm against a target, if one is given; only at the end of schedules."""


def list_unusable(arms: Sequence[Arm]) -> tuple[str, ...]:
    """List the labels of runs that have no evaluation after their first step, and so have reached no budget."""
    return tuple(
        label
        for arm in arms
        for run, label in zip(arm.runs, arm.labels, strict=True)
        if not any(spent["steps"] for spent, _ in _trace_course(run))
    )


def compare_at_budgets(
    arms: Sequence[Arm], axes: Sequence[str], reference: str | None
) -> tuple[str | None, tuple[Budget, ...]]:
    """Return the reference, and a budget for each axis that all runs record; no budgets if a run has not taken a step.

    Unless named, the reference is the arm with the lowest median loss at equal tokens.
    """
    courses = {arm.name: {run.experiment.training.seed: _trace_course(run) for run in arm.runs} for arm in arms}
    if not all(course for runs in courses.values() for course in runs.values()):
        return reference, ()
    amounts = {axis: min(course[-1][0][axis] for runs in courses.values() for course in runs.values()) for axis in axes}
    reached = {
        axis: tuple(_measure_arm(name, runs, axis, amount) for name, runs in courses.items())
        for axis, amount in amounts.items()
        if amount > 0
    }
    if not reached:
        return reference, ()
    first = reached[choose_headline(reached)]
    chosen = reference or min(first, key=lambda arm: arm.median).arm
    return chosen, tuple(
        Budget(axis, amounts[axis], found, _compare_arms(found, chosen)) for axis, found in reached.items()
    )


def choose_headline(axes: Collection[str]) -> str:
    """Choose the axis that the verdict speaks of first."""
    return next(axis for axis in FIRST if axis in axes)


def _trace_course(run: Run) -> Course:
    rows = [row for row in run.metrics.to_dicts() if row.get(METRIC) is not None]
    return [(read_costs(run, row), row[METRIC]) for row in rows]


def _measure_arm(name: str, runs: Mapping[int, Course], axis: str, amount: float) -> BudgetResult:
    """Return the results of an arm within a budget. Some exist, since the starting weights have cost nothing."""
    last = {seed: [each for each in course if each[0][axis] <= amount][-1] for seed, course in runs.items()}
    return BudgetResult(
        name,
        {seed: loss for seed, (_, loss) in last.items()},
        {seed: spent[axis] for seed, (spent, _) in last.items()},
        {seed: spent["steps"] for seed, (spent, _) in last.items()},
    )


def _compare_arms(arms: Sequence[BudgetResult], reference: str) -> tuple[Difference, ...]:
    mine = next(arm.losses for arm in arms if arm.arm == reference)
    return tuple(compare_arm(arm, mine) for arm in arms if arm.arm != reference and mine.keys() & arm.losses.keys())


def compare_arm(other: BudgetResult, mine: Mapping[int, float]) -> Difference:
    """Return the difference of an arm from the losses of the reference, over the seeds that both have."""
    seeds = tuple(sorted(mine.keys() & other.losses.keys()))
    values = [other.losses[seed] - mine[seed] for seed in seeds]
    several = len(values) > 1
    return Difference(
        other.arm,
        seeds,
        fmean(values),
        compute_t_interval(values, values) if several else None,
        bootstrap_mean(values, values) if several else None,
        run_t_test(values) if several else None,
        run_sign_flip_test(values) if several else None,
    )
