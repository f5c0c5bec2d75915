"""A chart of the learning rate of each arm through its run, as it was recorded."""

from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import Chart, make_both

LEAST = 1.02  # ratio of the largest to the smallest rate below which a rate counts as constant


def draw_schedules(comparison: Comparison) -> Iterator[Chart]:
    """Draw the rate as a part of its largest, against the part of the run; nothing if every rate is constant."""
    rows = data.select_recorded([arm._replace(runs=arm.runs[:1]) for arm in comparison.arms], {"rate": "learning_rate"})
    if not rows.height:
        return
    rows = rows.filter(polars.col("rate") > 0).with_columns(
        (polars.col("rate") / polars.col("rate").max().over("run")).alias("part"),
        (polars.col("step") / polars.col("step").max().over("run")).alias("progress"),
    )
    if not rows.height or rows["part"].min() > 1 / LEAST:  # type: ignore[operator]  # a column of numbers
        return
    everyone = [arm.name for arm in comparison.arms]
    arms = look.list_present(rows, everyone)
    pick = look.make_selection()
    lines = (
        alt.Chart(look.name_table("schedules"))
        .mark_line(strokeWidth=2)
        .encode(
            alt.X("progress:Q", title="part of the run", axis=alt.Axis(format="%", tickCount=5)),
            alt.Y("part:Q", title="learning rate, part of its largest", axis=alt.Axis(format="%")),
            **look.style_lines(everyone, arms),
            opacity=look.fade(pick, 0.9),
            tooltip=look.make_tooltip("step", "rate=learning rate"),
        )
        .add_params(pick)
    )
    views, still = make_both(look.layer(lines))
    yield Chart(
        "schedules",
        "Schedules",
        "The rate of the method's own rule, of one seed. Gauss-Newton: at the end of each outer step. "
        + data.describe_thinning(rows),
        {"schedules": data.thin(rows)},
        views,
        still,
    )
