"""Make the tables of a comparison at equal budgets: losses, and differences with intervals."""

from collections.abc import Iterator

from gnflow.study import figures
from gnflow.study.budget_verdict import COARSE
from gnflow.study.budgets import BudgetResult
from gnflow.study.comparison import Comparison
from gnflow.study.intervals import Interval
from gnflow.study.report.html import Markup, escape, make_paragraph, make_table
from gnflow.study.report.results import format_p_value, make_swatches
from gnflow.study.scores import WORDS


def make_budget_tables(comparison: Comparison) -> Iterator[Markup]:
    """Make the section of budgets; empty if arms are compared at targets."""
    if not comparison.budgets:
        return
    dots = make_swatches(comparison)
    yield make_table(
        ("at most", "of", *(arm.name for arm in comparison.arms)),
        [
            (
                escape(figures.format_budget(budget.axis, budget.amount)), escape(WORDS[budget.axis]),
                *(escape(_format_loss(reached, budget.amount)) for reached in budget.arms),
            )
            for budget in comparison.budgets
        ],
        words=2,
    )  # fmt: skip
    yield make_paragraph(
        "Held-out loss at the last evaluation within the budget, the largest that every run has reached: medians over "
        f"the seeds. In brackets: how much of the budget that evaluation had cost, where less than {COARSE:.0%}."
    )
    if not any(budget.differences for budget in comparison.budgets):
        return
    yield make_table(
        ("arm", "at equal", "difference", "95 % (t)", "95 % (bootstrap)", "p (t)", "p (sign flip)", "seeds"),
        [
            (
                dots[each.other], escape(WORDS[budget.axis]), escape(f"{each.mean:+.4f}"),
                *(escape(_format_interval(interval)) for interval in (each.interval, each.bootstrap)),
                *(escape(format_p_value(p)) for p in (each.p_value, each.p_sign_flip)), escape(len(each.seeds)),
            )
            for arm in comparison.arms
            for budget in comparison.budgets
            for each in budget.differences
            if each.other == arm.name
        ],
        words=2,
    )  # fmt: skip
    yield make_paragraph(f"The loss less that of {comparison.reference}, in nats: means over paired seeds.")


def _format_loss(reached: BudgetResult, amount: float) -> str:
    used = min(reached.spent.values()) / amount
    return figures.format_loss(reached.median) + (f" ({used:.0%})" if used < COARSE else "")


def _format_interval(interval: Interval | None) -> str:
    return figures.MISSING if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"
