"""Charts of how far the loss of each arm is from that of the reference at equal budgets, with intervals."""

from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study import figures
from gnflow.study.budgets import Budget, choose_headline
from gnflow.study.comparison import Comparison
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, Choice, make_spec, make_still, set_size
from gnflow.study.scores import WORDS

BAND = 22  # pixels for one arm


def draw_differences(comparison: Comparison) -> Iterator[Chart]:
    """Draw a point with its interval for each arm, the best arm first, with a choice of budget if there are several."""
    budgets = [budget for budget in comparison.budgets if budget.differences]
    if not budgets:
        return
    headline = choose_headline([budget.axis for budget in budgets])
    budgets.sort(key=lambda budget: budget.axis != headline)
    order = [arm.arm for arm in sorted(budgets[0].arms, key=lambda arm: arm.median)]
    height = max(110, BAND * len(order) + 30)
    drawn = {WORDS[budget.axis]: set_size(_draw_points(comparison, order, budget), height=height) for budget in budgets}
    where = "at the end of schedules" if comparison.ended else "at equal budgets"
    yield Chart(
        "differences",
        f"Held-out loss less that of {comparison.reference}, {where}",
        "Left of 0 the loss is lower. Bars: 95 % intervals, where there are two seeds or more.",
        {"differences": polars.DataFrame(list(_list_rows(budgets)))},
        {name if len(drawn) > 1 else "": make_spec(drawing) for name, drawing in drawn.items()},
        make_still(set_size(drawn[WORDS[headline]], WIDTH - 60, height)),
        (Choice("at equal", tuple(drawn)),) if len(drawn) > 1 else (),
    )


def _list_rows(budgets: list[Budget]) -> Iterator[dict[str, object]]:
    for budget in budgets:
        for each in budget.differences:
            low, high = each.interval or (each.mean, each.mean)
            yield {"arm": each.other, "axis": WORDS[budget.axis], "difference": each.mean, "low": low, "high": high}


def _draw_points(comparison: Comparison, order: list[str], budget: Budget) -> alt.LayerChart:
    arms = [arm.name for arm in comparison.arms]
    base = alt.Chart(look.name_table("differences")).transform_filter(alt.datum.axis == WORDS[budget.axis])
    amount = figures.format_budget(budget.axis, budget.amount)
    unit = "" if budget.axis == "seconds" else f" {WORDS[budget.axis]}"
    x = alt.X(
        "difference:Q",
        title=f"nats above {comparison.reference}, at {amount}{unit}",
        scale=alt.Scale(zero=True),
        axis=alt.Axis(tickCount=8),
    )
    y = alt.Y("arm:N", title=None, sort=order, scale=alt.Scale(domain=order), axis=alt.Axis(labelLimit=220))
    colours = alt.Scale(domain=arms, range=look.list_colours(arms))
    shared = {"y": y, "color": alt.Color("arm:N", scale=colours, legend=None)}
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", **shared)
    middle = base.mark_point(filled=True, size=80).encode(
        x=x, **shared, tooltip=look.make_tooltip("difference", "low", "high")
    )
    reference = (
        alt.Chart(look.name_table("differences"))
        .transform_aggregate(rows="count()")
        .mark_point(shape="diamond", filled=True, size=70, color="#888")
        .encode(x=alt.XDatum(0), y=alt.YDatum(comparison.reference))
    )
    return look.layer(look.draw_rule("differences", x=0), bars, middle, reference)
