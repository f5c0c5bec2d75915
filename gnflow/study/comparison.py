"""Compare arms on five axes, at targets or else at equal budgets, in numbers and in words, with warnings."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.study import budget_verdict, end_verdict, figures
from gnflow.study.arms import Arm, group_runs
from gnflow.study.below import Below
from gnflow.study.budgets import Budget, compare_at_budgets
from gnflow.study.ends import compare_ends, warn_of_ends
from gnflow.study.fairness import warn_of_differences
from gnflow.study.intervals import Interval
from gnflow.study.load import find_objection, measure_load
from gnflow.study.profile import Profile, make_profile
from gnflow.study.ratios import Estimate, Ratio, estimate_ratio
from gnflow.study.results import Result, summarise_arm
from gnflow.study.scores import COLUMNS, METRIC, WORDS
from gnflow.study.token_ratio import TokenRatio
from gnflow.study.verdict import describe_comparison
from gnflow.train.run import Run


class Comparison(NamedTuple):
    """All results that `gnflow compare` and `gnflow report` show."""

    targets: tuple[float, ...]
    """Targets from the highest to the lowest, which is the headline. Empty if arms are compared at equal budgets."""
    arms: tuple[Arm, ...]
    """The arms in the order of the runs."""
    results: tuple[Result, ...]
    """The result of each arm at each target, in the order of `targets` and then of `arms`."""
    reference: str | None
    """The arm that the others are compared to. Unless named, it has the fewest steps to the lowest target that a run
    has reached, or the lowest loss at equal tokens; None if there is no such arm."""
    ratios: tuple[Ratio, ...]
    """For each target, the ratio of every other arm to the reference."""
    profiles: dict[str, Profile]
    """Performance profiles by axis (WORDS); empty with one target or one arm."""
    budgets: tuple[Budget, ...]
    """The comparison at equal budgets, by axis, if there is no target; at the end of schedules, by tokens alone."""
    verdict: tuple[str, ...]
    """Sentences about the headline."""
    warnings: tuple[str, ...]
    ended: bool = False
    """Whether arms are compared at the end of their schedules, which all spend one budget."""

    @property
    def headline(self) -> float | None:
        """The target that the verdict is about; None at equal budgets."""
        return self.targets[-1] if self.targets else None

    def select_results(self, target: float) -> tuple[Result, ...]:
        """Return the results at one target, in the order of `arms`."""
        return tuple(result for result in self.results if result.target == target)

    def to_json(self) -> dict[str, object]:
        """Return a plain tree. Infinite values are null, beside the number of misses."""
        return {
            "metric": METRIC,
            "targets": list(self.targets),
            "reference": self.reference,
            "arms": {arm.name: _convert_arm(arm) for arm in self.arms},
            "results": {
                figures.format_target(target): {
                    result.arm: _convert_result(result) for result in self.select_results(target)
                }
                for target in self.targets
            },
            "ratios": {
                figures.format_target(target): {
                    ratio.other: {"seeds": list(ratio.seeds)}
                    | {axis: _convert_estimate(e) for axis, e in ratio.axes.items()}
                    for ratio in self.ratios
                    if ratio.target == target
                }
                for target in self.targets
            },
            "profiles": {axis: profile._asdict() for axis, profile in self.profiles.items()},
            "budgets": {budget.axis: _convert_budget(budget) for budget in self.budgets},
            "verdict": list(self.verdict),
            "warnings": list(self.warnings),
        }


def compare(
    runs: Sequence[Run],
    targets: Sequence[float] = (),
    reference: str | None = None,
    *,
    budget: float | None = None,
    sigma: float | None = None,
) -> Comparison:
    """Compare runs at `targets`, else at the target that all specs share, else at equal budgets.

    With a `budget` in tokens, which every run was planned for, they are compared at the end of their schedules; `sigma`
    is then the standard deviation of that loss over seeds, if it is known. One target may be given beside a budget: it
    is tested whether the loss of each arm at the end is below it.

    Raises SpecError if two runs have the same arm and seed, if the reference is unknown, or for several targets beside
    a budget.
    """
    compared = group_runs(runs)
    named = None if reference is None else _check_reference(reference, compared)
    if budget is not None:
        return _compare_at_ends(compared, budget, named, sigma, _choose_target(targets))
    downwards = tuple(sorted(set(targets) or _find_common_targets(runs), reverse=True))
    noise = find_objection(compared) if len(compared) > 1 else None
    axes = [axis for axis in WORDS if axis != "seconds" or noise is None]
    if not downwards:
        return _compare_at_budgets(compared, axes, named, noise)
    results = tuple(summarise_arm(arm, target) for target in downwards for arm in compared)
    chosen = named or _find_fastest(results)
    ratios = tuple(
        estimate_ratio(mine, theirs, axes)
        for target in downwards
        for mine in results
        if mine.arm == chosen and mine.target == target
        for theirs in results
        if theirs.target == target and theirs is not mine
    )
    several = len(downwards) > 1 and len(compared) > 1
    profiles = {axis: made for axis in axes if several and (made := make_profile(results, axis))}
    silent = [noise] if noise and any(ratio.axes for ratio in ratios) else []
    return Comparison(
        downwards,
        compared,
        results,
        chosen,
        ratios,
        profiles,
        (),
        (*describe_comparison(compared, results, ratios), *silent),
        tuple(warn_of_differences(compared, downwards)),
    )


def _compare_at_budgets(
    compared: tuple[Arm, ...], axes: Sequence[str], named: str | None, noise: str | None
) -> Comparison:
    chosen, found = compare_at_budgets(compared, axes, named)
    silent = [noise] if noise and found else []
    said = (*budget_verdict.describe_budgets(compared, found, chosen), *silent)
    against = (*warn_of_differences(compared), *budget_verdict.warn_of_budgets(compared, found))
    return Comparison((), compared, (), chosen, (), {}, found, said, against)


def _choose_target(targets: Sequence[float]) -> float | None:
    if len(set(targets)) > 1:
        raise SpecError(f"losses at the end of a budget are tested against one target, but {len(targets)} are given")
    return targets[0] if targets else None


def _compare_at_ends(
    compared: tuple[Arm, ...], amount: float, named: str | None, sigma: float | None, target: float | None
) -> Comparison:
    chosen, found = compare_ends(compared, amount, named, sigma, target)
    said = tuple(end_verdict.describe_ends(compared, found, chosen, sigma))
    against = (*warn_of_differences(compared), *(warning for budget in found for warning in warn_of_ends(budget)))
    return Comparison((), compared, (), chosen, (), {}, found, said, against, True)


def _find_common_targets(runs: Sequence[Run]) -> set[float]:
    """Return the target of the runs if all that have a target have the same one."""
    targets = {run.experiment.training.target.at_most for run in runs if run.experiment.training.target}
    return targets if len(targets) == 1 else set()


def _check_reference(reference: str, arms: Sequence[Arm]) -> str:
    names = [arm.name for arm in arms]
    if reference not in names:
        raise SpecError(f"there is no arm `{reference}` to compare to; the arms are {figures.join_words(names)}")
    return reference


def _find_fastest(results: Sequence[Result]) -> str | None:
    """Find the arm with the fewest median steps to the lowest target that was reached, else with most seeds there."""
    reached = [result for result in results if result.reached]
    last = [result for result in reached if result.target == reached[-1].target]
    best = min(last, key=lambda result: (result.median["steps"], -result.reached / len(result.scores)), default=None)
    return None if best is None else best.arm


def _convert_arm(arm: Arm) -> dict[str, object]:
    return {
        "optimizer": arm.kind,
        "seeds": list(arm.seeds),
        "trials": arm.trials,
        "load": [measure_load(run) for run in arm.runs],
        "learning_rates": {path or "optimizer": rate for path, rate in arm.learning_rates.items()},
        "update_rms": arm.update_rms,
        "start": arm.start,
        "best": arm.best,
    }


def _convert_result(result: Result) -> dict[str, object]:
    seeds = [str(score.seed) for score in result.scores]
    spent = {axis: [score.spent[axis] for score in result.scores] for axis in COLUMNS}
    return {"reached": result.reached, "missed": result.misses} | {
        axis: {
            "median": _replace_infinity(result.median[axis]),
            "needed": dict(zip(seeds, map(_replace_infinity, result.needed[axis]), strict=True)),
            "spent": dict(zip(seeds, spent[axis], strict=True)),
        }
        for axis in COLUMNS
    }


def _convert_estimate(estimate: Estimate) -> dict[str, object]:
    return estimate._asdict() | {
        "interval": _convert_interval(estimate.interval),
        "bootstrap": _convert_interval(estimate.bootstrap),
    }


def _convert_budget(budget: Budget) -> dict[str, object]:
    return {
        "budget": budget.amount,
        "arms": {
            reached.arm: {"median": reached.median}
            | {name: _convert_seeds(getattr(reached, name)) for name in ("losses", "spent", "steps")}
            for reached in budget.arms
        },
        "differences": {
            each.other: {name: value for name, value in each._asdict().items() if name != "token_ratio"}
            | {"interval": _convert_interval(each.interval), "bootstrap": _convert_interval(each.bootstrap)}
            | ({"token_ratio": _convert_token_ratio(each.token_ratio)} if each.token_ratio else {})
            for each in budget.differences
        },
        **({"below": {test.arm: _convert_test(test) for test in budget.tests}} if budget.tests else {}),
    }


def _convert_test(test: Below) -> dict[str, object]:
    return {name: value for name, value in test._asdict().items() if name != "arm"} | {"decided": test.decided}


def _convert_token_ratio(ratio: TokenRatio) -> dict[str, object]:
    return ratio._asdict() | {"interval": _convert_interval(ratio.interval)}


def _convert_seeds(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}


def _convert_interval(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else interval.to_json()


def _replace_infinity(value: float) -> float | None:
    return value if isfinite(value) else None
