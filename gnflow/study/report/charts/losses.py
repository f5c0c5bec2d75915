"""Charts of held-out loss against each of the five axes."""

from collections.abc import Iterator, Sequence
from typing import Literal

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import HEIGHT, WIDTH, Chart, Choice, Spec, make_spec, make_still, set_size
from gnflow.study.report.charts.multiples import draw_small_multiples
from gnflow.study.scores import COLUMNS, METRIC, WORDS

SCALES: tuple[Literal["linear"], Literal["log"]] = ("linear", "log")
ROOM = 1.02  # a curve that rises above the largest starting loss is cut off this far above it


def draw_losses(comparison: Comparison) -> Iterator[Chart]:
    """Draw one chart with a choice of axis; on paper, one panel for each axis."""
    arms = [arm.name for arm in comparison.arms]
    costs = {axis: COLUMNS[axis] for axis in WORDS if axis != "steps"}
    rows = data.select_recorded(comparison.arms, {"loss": METRIC, **costs})
    if not rows.height:  # a run need not record its costs
        costs, rows = {}, data.select_recorded(comparison.arms, {"loss": METRIC})
    if not rows.height:
        return
    rows = rows.with_columns(polars.col("step").cast(polars.Float64).alias("steps"))
    axes = ["steps", *costs]
    top, cut = _find_top(rows)
    tables = {
        "losses": data.thin(rows),
        "median_losses": data.thin(data.compute_medians(rows, ["loss", *axes]), by="arm"),
        "targets": polars.DataFrame({"target": list(comparison.targets)}, schema={"target": polars.Float64}),
    }
    if len(arms) > len(look.COLOURS):
        yield draw_small_multiples(comparison, rows, axes, top, cut)
        return
    note = "Thin: one seed. Bold: the median over the seeds, as far as all of them got."
    note += " Grey: the target." if comparison.targets else ""
    note += " Curves that rise above the largest loss at the start are cut off." if cut else ""
    views = {
        f"{WORDS[axis]} {scale}": make_spec(set_size(_draw_axis(arms, axis, scale, top, look.make_selection())))
        for axis in axes
        for scale in SCALES
    }
    yield Chart(
        "losses",
        "Held-out loss",
        f"{note} {data.describe_thinning(rows)}".strip(),
        tables,
        views,
        _draw_panels(arms, axes, top),
        (Choice("against", tuple(WORDS[axis] for axis in axes)), Choice("axis", SCALES)),
    )


def _draw_axis(
    arms: Sequence[str], cost: str, scale: Literal["linear", "log"], top: float | None, pick: alt.Parameter | None
) -> alt.LayerChart:
    x = alt.X(
        f"{cost}:Q",
        title=WORDS[cost],
        scale=alt.Scale(type=scale, nice=scale == "linear"),
        axis=look.make_large_axis(8 if pick else 5),
    )
    y = alt.Y(
        "loss:Q", title="held-out loss", scale=alt.Scale(zero=False, domainMax=alt.Undefined if top is None else top)
    )
    everything, middle = alt.Chart(look.name_table("losses")), alt.Chart(look.name_table("median_losses"))
    if scale == "log":  # the evaluation before the first step has cost nothing
        everything, middle = (chart.transform_filter(alt.datum[cost] > 0) for chart in (everything, middle))
    layers = [
        alt.Chart(look.name_table("targets"))
        .mark_rule(strokeDash=[5, 4], color="#888")
        .encode(y="target:Q", tooltip=alt.Tooltip("target:Q", title="target")),
        everything.mark_line(clip=True, strokeWidth=1).encode(
            x, y, look.encode_colour(arms, symbol="stroke"), opacity=look.fade(pick, 0.45), detail="run:N"
        ),
        middle.mark_line(clip=True, strokeWidth=2.5).encode(
            x, y, **look.style_lines(arms), opacity=look.fade(pick, 1.0)
        ),
    ]
    if pick is not None:
        spent = () if cost == "steps" else (f"{cost}={WORDS[cost]}",)
        points = everything.mark_circle(clip=True, size=18).encode(
            x,
            y,
            look.encode_colour(arms, symbol="stroke"),
            opacity=look.fade(pick, 0.5),
            tooltip=look.make_tooltip("seed", "step", "loss=held-out loss", *spent),
        )
        layers.append(points.add_params(pick))
    return look.layer(*layers)


def _draw_panels(arms: Sequence[str], costs: Sequence[str], top: float | None) -> Spec:
    """Draw a small chart for each axis, two in a row."""
    width, height = (WIDTH - 60) // 2, HEIGHT * 3 // 5
    panels = [set_size(_draw_axis(arms, cost, "linear", top, None), width, height) for cost in costs]
    return make_still(alt.concat(*panels, columns=2))


def _find_top(rows: polars.DataFrame) -> tuple[float | None, bool]:
    """Return the upper end of the loss axis, and whether a curve goes far above its starting loss and is cut off."""
    starts = [value for value in rows.filter(polars.col("step") == 0)["loss"] if value is not None]
    highest = rows["loss"].max()
    if not starts or not isinstance(highest, float) or highest <= ROOM * max(starts):
        return None, False
    return ROOM * max(starts), True
