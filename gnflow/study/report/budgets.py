"""Make the tables of a comparison at equal budgets: losses, and differences with intervals."""

from collections.abc import Iterator

from gnflow.study import figures
from gnflow.study.budget_verdict import COARSE
from gnflow.study.budgets import Reached
from gnflow.study.comparison import Comparison
from gnflow.study.intervals import Interval
from gnflow.study.report.html import Markup, paragraph, table, text
from gnflow.study.report.results import p, swatches
from gnflow.study.scores import WORDS


def budgets(comparison: Comparison) -> Iterator[Markup]:
    """Make the section of budgets; empty if arms are compared at targets."""
    if not comparison.budgets:
        return
    dots = swatches(comparison)
    yield table(
        ("at most", "of", *(arm.name for arm in comparison.arms)),
        [
            (
                text(figures.budget(budget.axis, budget.amount)), text(WORDS[budget.axis]),
                *(text(_loss(reached, budget.amount)) for reached in budget.arms),
            )
            for budget in comparison.budgets
        ],
        words=2,
    )  # fmt: skip
    yield paragraph(
        "Held-out loss at the last evaluation within the budget, the largest that every run has reached: medians over "
        f"the seeds. In brackets: how much of the budget that evaluation had cost, where less than {COARSE:.0%}."
    )
    if not any(budget.differences for budget in comparison.budgets):
        return
    yield table(
        ("arm", "at equal", "difference", "95 % (t)", "95 % (bootstrap)", "p (t)", "p (sign flip)", "seeds"),
        [
            (
                dots[each.other], text(WORDS[budget.axis]), text(f"{each.mean:+.4f}"), text(_ends(each.interval)),
                text(_ends(each.bootstrap)), text(p(each.p_value)), text(p(each.p_sign_flip)), text(len(each.seeds)),
            )
            for arm in comparison.arms
            for budget in comparison.budgets
            for each in budget.differences
            if each.other == arm.name
        ],
        words=2,
    )  # fmt: skip
    yield paragraph(f"The loss less that of {comparison.reference}, in nats: means over paired seeds.")


def _loss(reached: Reached, amount: float) -> str:
    used = min(reached.spent.values()) / amount
    return figures.loss(reached.median) + (f" ({used:.0%})" if used < COARSE else "")


def _ends(interval: Interval | None) -> str:
    return figures.MISSING if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"
