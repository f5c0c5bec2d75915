"""Compare the held-out loss of arms at the end of their schedules, all of which trained on one budget of tokens.

A difference is the loss of another arm less that of the reference, in nats, paired by seed. If the standard deviation
over seeds is known, it is the difference of the means over all seeds, with the normal distribution.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.budgets import Budget, BudgetResult, Difference, compare_arm
from gnflow.study.intervals import compute_z_interval, run_z_test
from gnflow.study.scores import METRIC, read_costs
from gnflow.study.token_ratio import TokenRatio, estimate_token_ratio
from gnflow.train.results import COMPLETE
from gnflow.train.run import Run

AXIS = "tokens"
NEAR = 0.02  # a run that used a part of the budget that differs from 1 by more is pointed out


def compare_ends(
    arms: Sequence[Arm], amount: float, reference: str | None, sigma: float | None = None
) -> tuple[str | None, tuple[Budget, ...]]:
    """Return the reference and the comparison at `amount` tokens; no comparison if a run has not ended.

    Unless named, the reference is the arm with the lowest median loss.
    """
    if list(list_unended(arms)):
        return reference, ()
    reached = tuple(_measure_arm(arm) for arm in arms)
    chosen = reference or min(reached, key=lambda arm: arm.median).arm
    mine = reached[[arm.name for arm in arms].index(chosen)]
    ratios = {
        arm.name: estimate_token_ratio(arms[reached.index(mine)], reached[place].losses, amount)
        for place, arm in enumerate(arms)
        if arm.name != chosen
    }
    found = (_difference(other, mine, sigma, ratios[other.arm]) for other in reached if other is not mine)
    return chosen, (Budget(AXIS, amount, reached, tuple(one for one in found if one)),)


def list_unended(arms: Sequence[Arm]) -> Iterator[str]:
    """List the labels of runs that have not come to the end of their schedule."""
    for arm in arms:
        for run, label in zip(arm.runs, arm.labels, strict=True):
            if run.summary.get("status") != COMPLETE or _find_last(run) is None:
                yield label


def warn(budget: Budget) -> Iterator[str]:
    """Warn about arms whose runs used clearly more or less than the budget, or different numbers of steps."""
    for arm in budget.arms:
        if len(set(arm.steps.values())) > 1:
            ends = figures.join_words([f"{step:g}" for step in sorted(set(arm.steps.values()))])
            yield f"the seeds of {arm.arm} do not all end at one step: they end at {ends}"
        parts = [spent / budget.amount for spent in arm.spent.values()]
        far = max(parts, key=lambda part: abs(part - 1))
        if abs(far - 1) > NEAR:
            yield f"the runs of {arm.arm} used {far:.0%} of the budget of {figures.format_count(budget.amount)} tokens"


def _find_last(run: Run) -> Mapping[str, float] | None:
    rows = [row for row in run.metrics.to_dicts() if row.get(METRIC) is not None]
    return rows[-1] if rows and rows[-1]["step"] else None


def _measure_arm(arm: Arm) -> BudgetResult:
    last = {run.experiment.training.seed: (run, _find_last(run) or {}) for run in arm.runs}
    return BudgetResult(
        arm.name,
        {seed: row[METRIC] for seed, (_, row) in last.items()},
        {seed: read_costs(run, row)[AXIS] for seed, (run, row) in last.items()},
        {seed: row["step"] for seed, (_, row) in last.items()},
    )


def _difference(other: BudgetResult, mine: BudgetResult, sigma: float | None, ratio: TokenRatio) -> Difference | None:
    """Return the difference of another arm; None if it has no seed in common with the reference."""
    if sigma is None:
        paired = mine.losses.keys() & other.losses.keys()
        return compare_arm(other, mine.losses)._replace(token_ratio=ratio) if paired else None
    mean = fmean(other.losses.values()) - fmean(mine.losses.values())
    error = sigma * sqrt(1 / len(mine.losses) + 1 / len(other.losses))
    seeds = tuple(sorted(mine.losses.keys() | other.losses.keys()))
    return Difference(
        other.arm, seeds, mean, compute_z_interval(mean, error), None, run_z_test(mean, error), None, ratio
    )
