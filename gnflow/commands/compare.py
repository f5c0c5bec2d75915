"""`gnflow compare RUN..`: the cost of each arm to reach the target, or its loss at equal budgets, with intervals."""

import json as json_text
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from gnflow.study import figures, tables
from gnflow.study.budget_verdict import COARSE
from gnflow.study.budgets import Budget, BudgetResult, Difference
from gnflow.study.cells import Matrix
from gnflow.study.comparison import Comparison
from gnflow.study.comparison import compare as compared
from gnflow.study.find import read_runs, report_unread
from gnflow.study.intervals import Interval
from gnflow.study.lead import tell_answer
from gnflow.study.matrix import make_matrix
from gnflow.study.profile import Profile
from gnflow.study.ratios import Estimate
from gnflow.study.results import Result
from gnflow.study.scores import METRIC, WORDS
from gnflow.study.tables import Table

COUNTS = ("passes", "tokens", "tokens/solve", "tokens/search", "flops")
FEW = 4  # number of arms up to which the verdict on each is printed
TAUS = (1.0, 1.5, 2.0, 4.0)


def compare(
    runs: Sequence[Path],
    *,
    targets: Sequence[float],
    reference: str | None,
    json: bool,
    budget: float | None = None,
    sigma: float | None = None,
    everything: bool = False,
) -> int:
    """Print the comparison as tables with a verdict in words, or as JSON. Returns 7 if a run had to be left out."""
    found = read_runs(runs)
    comparison = compared(found.runs, targets, reference, budget=budget, sigma=sigma)
    if json:
        print(json_text.dumps(comparison.to_json(), indent=2, allow_nan=False))
    else:
        _print(comparison, everything)
    return report_unread(found.unread)


def _print(comparison: Comparison, everything: bool) -> None:
    """Print the answer in one sentence and the matrix; all tables and sentences if there are few arms or if asked."""
    console = tables.make_console()
    console.print(tell_answer(comparison))
    console.print()
    if matrix := make_matrix(comparison):
        console.print(_make_matrix_table(matrix))
        console.print("\n".join(matrix.notes))
        console.print()
    if everything:
        for table in _make_tables(comparison):
            console.print(table)
            console.print()
    several = len(comparison.verdict) > 1 or comparison.verdict[:1] != (tell_answer(comparison),)
    if several and (everything or len(comparison.arms) <= FEW):
        for sentence in comparison.verdict:
            console.print(sentence)
    for warning in comparison.warnings:
        console.print(f"warning: {warning}")
    if not everything:
        console.print("`--all` prints every target, interval, p-value and the settings of the arms.")


def _make_matrix_table(matrix: Matrix) -> Table:
    reached = any(row.reached for row in matrix.rows)
    beside = [any(row.cells[place].beside for row in matrix.rows) for place in range(len(matrix.columns))]
    columns = ["arm", *(["reached"] if reached else [])]
    for name, shown in zip(matrix.columns, beside, strict=True):
        columns += [name, *([matrix.beside] if shown else [])]
    table = tables.Table(matrix.title, columns, 1)
    for row in matrix.rows:
        cells = [row.arm, *([row.reached] if reached else [])]
        for cell, shown in zip(row.cells, beside, strict=True):
            cells += [cell.value, *([cell.beside or figures.MISSING] if shown else [])]
        table.add_row(*cells)
    return table


def _make_tables(comparison: Comparison) -> Iterator[Table]:
    yield _make_arm_table(comparison)
    for target in comparison.targets:
        yield _make_result_table(target, comparison.select_results(target))
        if any(ratio.axes for ratio in comparison.ratios if ratio.target == target):
            yield _make_ratio_table(comparison, target)
    if comparison.budgets:
        yield _make_budget_table(comparison.budgets)
    if any(budget.differences for budget in comparison.budgets):
        yield _make_difference_table(comparison)
    if "steps" in comparison.profiles:
        yield _make_profile_table(comparison.profiles["steps"])


def _make_arm_table(comparison: Comparison) -> Table:
    columns = ("arm", "optimizer", "learning rates", "seeds", "trials", "update RMS", "start", "best")
    table = tables.Table(None, columns, 3)
    for arm in comparison.arms:
        rates = ", ".join(f"{path} {rate:g}".strip() for path, rate in arm.learning_rates.items())
        rms = figures.MISSING if arm.update_rms is None else f"{arm.update_rms:.2g}"
        losses = figures.format_loss(arm.start), figures.format_loss(arm.best)
        table.add_row(arm.name, arm.kind, rates, ", ".join(map(str, arm.seeds)), str(arm.trials), rms, *losses)
    return table


def _make_result_table(target: float, results: Sequence[Result]) -> Table:
    title = f"to {METRIC} <= {figures.format_target(target)}" + (
        " (medians over seeds)" if any(len(result.scores) > 1 for result in results) else ""
    )
    columns = ["arm", "reached", "steps", "passes", "tokens", "solve", "search", "FLOPs", "time"]
    times = ["seconds"]
    if any(result.needed["seconds"] != result.needed["device_seconds"] for result in results):
        columns, times = [*columns, "device time", "devices"], [*times, "device_seconds"]
    table = tables.Table(title, columns, 1)
    for result in results:
        costs = _format_costs(result, times) if result.median["steps"] < inf else ["missed"]
        missing = [figures.MISSING] * (len(columns) - 2 - len(costs))
        table.add_row(result.arm, f"{result.reached} of {len(result.scores)}", *costs, *missing)
    return table


def _format_costs(result: Result, times: Sequence[str]) -> list[str]:
    costs = result.median
    several = [f"{costs['device_seconds'] / costs['seconds']:.3g}"] if len(times) > 1 else []
    return [
        f"{costs['steps']:g}",
        *(figures.format_count(costs[axis]) for axis in COUNTS),
        *(figures.format_duration(costs[axis]) for axis in times),
        *several,
    ]


def _make_ratio_table(comparison: Comparison, target: float) -> Table:
    columns = ("arm", "needs", "ratio", "95 % interval", "bootstrap", "p", "p of sign flips", "seeds")
    title = f"times as many as {comparison.reference} needs (interval and p: Student's t on paired log ratios)"
    table = tables.Table(title, columns, words=2, keys=2)
    for ratio in comparison.ratios:
        for place, (axis, estimate) in enumerate(ratio.axes.items() if ratio.target == target else ()):
            name = "" if place else ratio.other
            table.add_row(name, WORDS[axis], *_format_ratio(estimate), str(len(ratio.seeds)))
    return table


def _format_ratio(estimate: Estimate) -> list[str]:
    """Format the factor, its interval, the bootstrap interval and the p-values."""
    sign = {"at least": ">= ", "at most": "<= "}.get(estimate.bound, "")
    factor = figures.MISSING if estimate.factor is None else f"{sign}{figures.format_ratio(estimate.factor)}"
    p_values = _format_p_values(estimate.p_value, estimate.p_sign_flip)
    return [factor, _format_interval(estimate.interval), _format_interval(estimate.bootstrap), *p_values]


def _format_interval(interval: Interval | None) -> str:
    if interval is None:
        return figures.MISSING
    high = figures.format_ratio(interval.high) if interval.high < inf else "inf"
    return f"{figures.format_ratio(interval.low)} to {high}"


def _make_budget_table(budgets: Sequence[Budget]) -> Table:
    several = any(len(reached.losses) > 1 for budget in budgets for reached in budget.arms)
    title = f"{METRIC} at equal budgets" + (" (medians over seeds)" if several else "")
    table = tables.Table(title, ("arm", *(WORDS[budget.axis] for budget in budgets)), 1)
    table.add_row("budget", *map(figures.format_budget, [b.axis for b in budgets], [b.amount for b in budgets]))
    for place, reached in enumerate(budgets[0].arms):
        table.add_row(reached.arm, *(_format_loss(budget.arms[place], budget.amount) for budget in budgets))
    return table


def _format_loss(reached: BudgetResult, amount: float) -> str:
    """Format the loss, and how much of the budget was used if that is little."""
    used = min(reached.spent.values()) / amount
    return figures.format_loss(reached.median) + (f" (after {used:.0%})" if used < COARSE else "")


def _make_difference_table(comparison: Comparison) -> Table:
    columns = ("arm", "at equal", "difference", "95 % interval", "bootstrap", "p", "p of sign flips", "seeds")
    title = f"loss less that of {comparison.reference} (interval and p: Student's t on paired differences)"
    table = tables.Table(title, columns, words=2, keys=2)
    for other in [difference.other for difference in comparison.budgets[0].differences]:
        name = other
        for budget in comparison.budgets:
            for difference in [each for each in budget.differences if each.other == other]:
                table.add_row(name, WORDS[budget.axis], *_format_difference(difference), str(len(difference.seeds)))
                name = ""
    return table


def _format_difference(difference: Difference) -> list[str]:
    """Format the mean, its interval, the bootstrap interval and the p-values."""
    ends = [
        figures.MISSING if found is None else f"{found.low:+.4f} to {found.high:+.4f}"
        for found in (difference.interval, difference.bootstrap)
    ]
    return [f"{difference.mean:+.4f}", *ends, *_format_p_values(difference.p_value, difference.p_sign_flip)]


def _format_p_values(*values: float | None) -> list[str]:
    return [figures.MISSING if value is None else f"{value:.2g}" for value in values]


def _make_profile_table(profile: Profile) -> Table:
    problems = f"{len(profile.problems)} problems (target, seed)"
    title = f"share of {problems} within a factor of the fewest {WORDS[profile.axis]}"
    table = tables.Table(title, ("arm", *(f"{tau:g}x" for tau in TAUS), "score"), 1)
    for name, curve in profile.curves.items():
        shares = [next(share for at, share in reversed(curve) if at <= tau) for tau in TAUS]
        table.add_row(name, *(f"{share:.2f}" for share in shares), f"{profile.scores[name]:.2f}")
    return table
