"""Compare the held-out loss of arms at the end of their schedules, all of which trained on one budget of tokens.

A difference is the loss of another arm less that of the reference, in nats, paired by seed. If the standard deviation
over seeds is known, it is the difference of the means over all seeds, with the normal distribution. A run that diverged
has no loss at the end. Its whole arm is left out, since the other seeds alone would be biased in its favour.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.below import measure_below
from gnflow.study.budgets import Budget, BudgetResult, Difference, compare_arm
from gnflow.study.intervals import compute_z_interval, run_z_test
from gnflow.study.scores import METRIC, read_costs
from gnflow.study.token_ratio import TokenRatio, estimate_token_ratios
from gnflow.train.results import COMPLETE, DIVERGED
from gnflow.train.run import Run

AXIS = "tokens"
NEAR = 0.02  # a run that used a part of the budget that differs from 1 by more is pointed out


def compare_ends(
    arms: Sequence[Arm], amount: float, reference: str | None, sigma: float | None = None, target: float | None = None
) -> tuple[str | None, tuple[Budget, ...]]:
    """Return the reference and the comparison at `amount` tokens, without arms that have a diverged run.

    There is no comparison if a run has not ended, or if the reference diverged. Unless named, the reference is the arm
    with the lowest median loss. With a `target`, each arm is also tested against it.
    """
    kept = {arm.name: arm for arm in arms if not count_diverged(arm)}
    if any(list_unended(arms)) or not kept or (reference is not None and reference not in kept):
        return reference, ()
    reached = tuple(_measure_arm(arm) for arm in kept.values())
    chosen = reference or min(reached, key=lambda arm: arm.median).arm
    mine = next(arm for arm in reached if arm.arm == chosen)
    others = [arm for arm in reached if arm is not mine]
    ratios = estimate_token_ratios(kept[chosen], {arm.arm: arm.losses for arm in others}, amount)
    found = (_compare_arm(other, mine, sigma, ratios[other.arm]) for other in others)
    tests = () if target is None else tuple(measure_below(a.arm, [*a.losses.values()], target, sigma) for a in reached)
    return chosen, (Budget(AXIS, amount, reached, tuple(one for one in found if one), tests),)


def count_diverged(arm: Arm) -> int:
    """Return how many runs of an arm diverged."""
    return sum(run.summary.get("status") == DIVERGED for run in arm.runs)


def list_unended(arms: Sequence[Arm]) -> Iterator[str]:
    """List the labels of runs that have not come to the end of their schedule, and have not diverged either."""
    for arm in arms:
        for run, label in zip(arm.runs, arm.labels, strict=True):
            status = run.summary.get("status")
            if status != DIVERGED and (status != COMPLETE or find_last(run) is None):
                yield label


def warn_of_ends(budget: Budget) -> Iterator[str]:
    """Warn about arms whose runs used clearly more or less than the budget, or different numbers of steps."""
    for arm in budget.arms:
        if len(set(arm.steps.values())) > 1:
            ends = figures.join_words([f"{step:g}" for step in sorted(set(arm.steps.values()))])
            yield f"the seeds of {arm.arm} do not all end at one step: they end at {ends}"
        parts = [spent / budget.amount for spent in arm.spent.values()]
        far = max(parts, key=lambda part: abs(part - 1))
        if abs(far - 1) > NEAR:
            yield f"the runs of {arm.arm} used {far:.0%} of the budget of {figures.format_count(budget.amount)} tokens"


def find_last(run: Run) -> Mapping[str, float] | None:
    """Return the row of the last held-out loss; None if there is none after the first step."""
    if METRIC not in run.metrics.columns:
        return None
    rows = run.metrics.drop_nulls(METRIC).tail(1).to_dicts()
    return rows[0] if rows and rows[0]["step"] else None


def _measure_arm(arm: Arm) -> BudgetResult:
    last = {run.experiment.training.seed: (run, find_last(run) or {}) for run in arm.runs}
    return BudgetResult(
        arm.name,
        {seed: row[METRIC] for seed, (_, row) in last.items()},
        {seed: read_costs(run, row)[AXIS] for seed, (run, row) in last.items()},
        {seed: row["step"] for seed, (_, row) in last.items()},
    )


def _compare_arm(other: BudgetResult, mine: BudgetResult, sigma: float | None, ratio: TokenRatio) -> Difference | None:
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
