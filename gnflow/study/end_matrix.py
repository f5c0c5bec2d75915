"""A matrix of arms at the end of their schedules: losses, differences, tokens, and what the runs have cost."""

from statistics import median

from gnflow.study import budget_verdict, figures
from gnflow.study.arms import Arm
from gnflow.study.below import LEVEL, Below
from gnflow.study.budgets import Budget, Difference
from gnflow.study.cells import ALIKE, UNDECIDED, Cell, Matrix, Row, format_column, mark
from gnflow.study.comparison import Comparison
from gnflow.study.ends import find_last
from gnflow.study.intervals import Interval
from gnflow.study.load import describe_time, find_objection
from gnflow.study.scores import read_costs
from gnflow.study.token_ratio import TokenRatio

AXES = ("passes", "flops", "device_seconds")


def make_end_matrix(comparison: Comparison) -> Matrix:
    """Make the matrix. The best arm comes first; the arms and the reference are those of the budget."""
    [budget] = comparison.budgets
    ranked = sorted(budget.arms, key=lambda arm: arm.median)
    differences = {each.other: each for each in budget.differences}
    ratios = {name: each.token_ratio for name, each in differences.items() if each.token_ratio is not None}
    tests = {test.arm: test for test in budget.tests}
    objection = find_objection(comparison.arms)
    costs = _list_costs(comparison, [arm.arm for arm in ranked], timed=objection is None)
    known = any(ratio.factor is not None for ratio in ratios.values())
    columns = [
        "loss",
        *(["difference"] if differences else []),
        *([f"{comparison.reference}'s tokens"] if known else []),
    ]
    columns += [name for name, _ in costs] + ([_format_test_column(budget)] if tests else [])
    rows = []
    for place, arm in enumerate(ranked):
        difference = differences.get(arm.arm)
        cells = [Cell(figures.format_loss(arm.median), "", difference is not None and _is_better(difference))]
        cells += [_make_difference_cell(difference)] if differences else []
        cells += [_make_ratio_cell(ratios.get(arm.arm), arm.arm == comparison.reference)] if known else []
        cells += [Cell(texts[place], "", False) for _, texts in costs]
        cells += [_make_test_cell(tests[arm.arm])] if tests else []
        rows.append(Row(arm.arm, "", tuple(cells)))
    notes = (*_list_notes(comparison, budget, ratios, known), *describe_time(comparison.arms, objection))
    where = f"at the end of {figures.format_budget(budget.axis, budget.amount)} tokens"
    return Matrix(f"held-out loss {where}", tuple(columns), tuple(rows), notes, "95 % CI")


def _list_costs(comparison: Comparison, names: list[str], timed: bool) -> list[tuple[str, list[str]]]:
    """Return the name and the texts of a column for each axis: medians over the seeds of what the runs have cost."""
    arms = {arm.name: arm for arm in comparison.arms}
    axes = [axis for axis in AXES if timed or axis != "device_seconds"]
    return [format_column(axis, [_measure_cost(arms[name], axis) for name in names]) for axis in axes]


def _measure_cost(arm: Arm, axis: str) -> float:
    return median(read_costs(run, find_last(run) or {"step": 0.0})[axis] for run in arm.runs)


def _is_better(difference: Difference) -> bool:
    return difference.interval is not None and budget_verdict.decide_claim(difference) == "above"


def _make_difference_cell(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell("", "", False)
    marked = mark(budget_verdict.decide_claim(difference), difference.interval is not None)
    interval = difference.interval
    beside = "" if interval is None else f"{interval.low:+.3f} to {interval.high:+.3f}"
    return Cell(f"{difference.mean:+.3f}{marked}", beside, _is_better(difference))


def _make_ratio_cell(ratio: TokenRatio | None, is_reference: bool) -> Cell:
    if ratio is None or ratio.factor is None:
        return Cell("1" if is_reference else figures.MISSING, "", False)
    beside = _format_interval(ratio.interval)
    return Cell(f"{figures.format_ratio(ratio.factor)}{' *' if ratio.extrapolated else ''}", beside, False)


def _format_interval(interval: Interval | None) -> str:
    return "" if interval is None else figures.format_range(interval.low, interval.high)


def _format_test_column(budget: Budget) -> str:
    return f"p, below {figures.format_target(budget.tests[0].target)}"


def _make_test_cell(test: Below) -> Cell:
    return Cell(figures.MISSING if test.p_value is None else f"{test.p_value:.2g}", "", test.decided)


def _list_notes(comparison: Comparison, budget: Budget, ratios: dict[str, TokenRatio], known: bool) -> list[str]:
    several = any(each.interval is not None for each in budget.differences)
    alone = all(len(arm.losses) == 1 for arm in budget.arms)
    notes = ["One seed." if alone else "Medians over the seeds."]
    if budget.differences:
        notes.append(f"Difference: nats above {comparison.reference}.")
    if several:
        notes.append(f"{UNDECIDED} the seeds do not decide; {ALIKE} about the same; the others are certain (95 %).")
    if known:
        beyond = " (* by a law beyond its curve)" if any(ratio.extrapolated for ratio in ratios.values()) else ""
        notes.append(f"{comparison.reference}'s tokens: how many times the budget it needs for this loss{beyond}.")
    elif reason := next((ratio.why_not for ratio in ratios.values() if ratio.why_not), None):
        notes.append(f"No ratio of tokens: {reason}.")
    if budget.tests:
        notes.append(f"p is one-sided; below {LEVEL:g} it is certain that the mean loss is below the target.")
    return notes
