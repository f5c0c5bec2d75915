"""A matrix of arms by axes, in the order of the answer: medians in one unit for each column, and ratios with a mark."""

from collections.abc import Sequence

from gnflow.study import budget_verdict, claims, figures
from gnflow.study.budgets import Difference, choose_headline
from gnflow.study.cells import ALIKE, UNDECIDED, Cell, Matrix, Row, format_column, mark
from gnflow.study.comparison import Comparison
from gnflow.study.end_matrix import make_end_matrix
from gnflow.study.load import describe_time, find_objection
from gnflow.study.ratios import Estimate, Ratio
from gnflow.study.results import Result
from gnflow.study.scores import WORDS


def make_matrix(comparison: Comparison, target: float | None = None) -> Matrix | None:
    """Make the matrix at a target, by default the lowest, or at equal budgets; None if nothing is compared."""
    if comparison.budgets and comparison.ended:
        return make_end_matrix(comparison)
    if comparison.budgets:
        return _make_budget_matrix(comparison)
    chosen = target if target is not None else comparison.headline
    return None if chosen is None else _make_target_matrix(comparison, chosen)


def _make_target_matrix(comparison: Comparison, target: float) -> Matrix:
    objection = find_objection(comparison.arms)
    axes = [axis for axis in WORDS if axis != "seconds" or objection is None]
    results = sorted(comparison.select_results(target), key=lambda one: (one.median["steps"], -one.reached))
    ratios = {ratio.other: ratio for ratio in comparison.ratios if ratio.target == target}
    columns = [format_column(axis, [result.median[axis] for result in results]) for axis in axes]
    rows = tuple(
        Row(
            result.arm,
            f"{result.reached}/{len(result.scores)}",
            tuple(
                _make_cell(values[place], axis, ratios.get(result.arm), result.arm == comparison.reference)
                for axis, (_, values) in zip(axes, columns, strict=True)
            ),
        )
        for place, result in enumerate(results)
    )
    several = any(len(ratio.seeds) > 1 for ratio in ratios.values())
    notes = _list_notes(comparison, several, "times the cost of", _any_missed(results))
    title = f"to a held-out loss of {figures.format_target(target)}"
    names, times = tuple(name for name, _ in columns), describe_time(comparison.arms, objection)
    return Matrix(title, names, rows, (*notes, *times), "x")


def _make_budget_matrix(comparison: Comparison) -> Matrix:
    budgets = comparison.budgets
    first = next(each for each in budgets if each.axis == choose_headline([budget.axis for budget in budgets]))
    order = [arm.arm for arm in sorted(first.arms, key=lambda arm: arm.median)]
    columns = tuple(f"{figures.format_budget(each.axis, each.amount)} {WORDS[each.axis]}" for each in budgets)
    rows = []
    for name in order:
        cells = []
        for budget in budgets:
            loss = next(arm.median for arm in budget.arms if arm.arm == name)
            difference = next((each for each in budget.differences if each.other == name), None)
            cells.append(_make_loss_cell(figures.format_loss(loss), difference))
        rows.append(Row(name, "", tuple(cells)))
    several = any(len(each.seeds) > 1 for budget in budgets for each in budget.differences)
    notes = _list_notes(comparison, several, "nats above", False)
    return Matrix("held-out loss at equal budgets", columns, tuple(rows), tuple(notes), "diff")


def _make_cell(value: str, axis: str, ratio: Ratio | None, is_reference: bool) -> Cell:
    estimate = ratio.axes.get(axis) if ratio else None
    if estimate is None:
        return Cell(value, "1" if is_reference else "", False)
    claim = claims.decide_claim(estimate)
    return Cell(
        value,
        _format_ratio(estimate) + mark(claim, estimate.interval is not None),
        claim == "more" and estimate.interval is not None,
    )


def _make_loss_cell(value: str, difference: Difference | None) -> Cell:
    if difference is None:
        return Cell(value, "", False)
    claim, several = budget_verdict.decide_claim(difference), difference.interval is not None
    return Cell(value, f"{difference.mean:+.3f}{mark(claim, several)}", claim == "above" and several)


def _format_ratio(estimate: Estimate) -> str:
    if estimate.factor is None:
        return ""
    sign = {"at least": "≥ ", "at most": "≤ "}.get(estimate.bound, "")
    return f"{sign}{figures.format_ratio(estimate.factor)}"


def _any_missed(results: Sequence[Result]) -> bool:
    return any(result.misses for result in results)


def _list_notes(comparison: Comparison, several: bool, what: str, missed: bool) -> list[str]:
    notes = ["Medians over the seeds." if several else "One seed: no difference is certain."]
    if comparison.reference is not None and len(comparison.arms) > 1:
        notes.append(f"Small: {what} {comparison.reference}.")
    if several:
        notes.append(f"{UNDECIDED} the seeds do not decide; {ALIKE} about the same; the others are certain (95 %).")
    if missed:
        notes.append("A miss counts as more than any number; ≥ is a bound that a miss leaves.")
    return notes
