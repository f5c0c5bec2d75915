"""Charts of Gauss-Newton's line search, and of how accurate its model was."""

from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import Chart, make_both


def draw_gauss_newton(comparison: Comparison) -> Iterator[Chart]:
    """Draw step lengths, gain ratios, and predicted against actual decrease, as far as they are recorded."""
    everyone = [arm.name for arm in comparison.arms]
    lengths = data.select_recorded(comparison.arms, {"alpha": "gn/alpha"})
    if lengths.height:
        yield _draw_over_steps(
            "step_lengths", "Line search: length of the step", "alpha", "alpha", None, lengths, everyone,
            "The part of the inner solution that the search settled on; 0 is a refused step.",
        )  # fmt: skip
    gains = data.select_recorded(comparison.arms, {"gain": "gn/gain_ratio"})
    if gains.height:
        low, high = (gains["gain"].quantile(q, "nearest") or 0.0 for q in (0.01, 0.99))
        outside = gains.filter((polars.col("gain") < low - 1) | (polars.col("gain") > high + 1))
        yield _draw_over_steps(
            "gain_ratios", "Gain ratio", "gain", "actual / predicted decrease", 1.0,
            gains.join(outside, on=["run", "step"], how="anti", maintain_order="left"), everyone,
            "1: the model predicted the decrease exactly. Below 1 it promised too much."
            + (f" {outside.height} of {gains.height} far outside the others are not shown." if outside.height else ""),
        )  # fmt: skip
    decreases = data.select_recorded(
        comparison.arms, {"predicted": "gn/predicted_decrease", "actual": "gn/actual_decrease"}
    )
    if decreases.height:
        yield _draw_decreases(decreases, everyone)


def _draw_over_steps(
    name: str,
    title: str,
    column: str,
    label: str,
    ideal: float | None,
    rows: polars.DataFrame,
    everyone: list[str],
    note: str,
) -> Chart:
    arms = look.list_present(rows, everyone)
    pick = look.make_selection()
    base = alt.Chart(look.name_table(name)).encode(
        look.make_step_axis(), alt.Y(f"{column}:Q", title=label), detail="run:N"
    )
    joined = base.mark_line(strokeWidth=1).encode(**look.style_lines(everyone, arms), opacity=look.fade(pick, 0.4))
    dots = base.mark_circle(size=30).encode(
        look.encode_colour(everyone, arms, "stroke"),
        opacity=look.fade(pick, 0.8),
        tooltip=look.make_tooltip("seed", "step", column),
    )
    layers: list[alt.Chart] = [joined, dots.add_params(pick)]
    if ideal is not None:
        layers.insert(0, look.draw_rule(name, y=ideal))
    views, still = make_both(look.layer(*layers))
    return Chart(name, title, f"{note} {data.describe_thinning(rows)}".strip(), {name: data.thin(rows)}, views, still)


def _draw_decreases(rows: polars.DataFrame, everyone: list[str]) -> Chart:
    arms = look.list_present(rows, everyone)
    pick = look.make_selection()
    values = [*rows["predicted"].to_list(), *rows["actual"].to_list()]
    smallest, largest = min(values), max(values)
    scale = alt.Scale(type="log", nice=False) if smallest > 0 else alt.Scale(type="symlog", constant=0.01)
    dots = (
        alt.Chart(look.name_table("decreases"))
        .mark_point(filled=True, size=36)
        .encode(
            alt.X("predicted:Q", title="predicted decrease", scale=scale),
            alt.Y("actual:Q", title="actual decrease", scale=scale),
            opacity=look.fade(pick, 0.75),
            **look.style_points(everyone, arms),
            tooltip=look.make_tooltip("seed", "step", "predicted", "actual"),
        )
        .add_params(pick)
    )
    ends = (
        alt.Chart(look.name_table("decreases_ideal"))
        .mark_line(color="#888", strokeDash=[5, 4], strokeWidth=1)
        .encode(alt.X("predicted:Q", scale=scale), alt.Y("actual:Q", scale=scale))
    )
    views, still = make_both(look.layer(ends, dots))
    ideal = polars.DataFrame({"predicted": [smallest, largest], "actual": [smallest, largest]})
    return Chart(
        "decreases", "Predicted and actual decrease", "Dashed: equal. Points below it got less than was promised.",
        {"decreases": data.thin(rows), "decreases_ideal": ideal}, views, still,
    )  # fmt: skip
