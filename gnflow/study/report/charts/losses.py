"""Charts of held-out loss against each of the five axes."""

from collections.abc import Iterator, Sequence
from typing import Literal

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import HEIGHT, WIDTH, Chart, Choice, Spec, sized, spec, still
from gnflow.study.scores import COLUMNS, METRIC, WORDS

SCALES: tuple[Literal["linear"], Literal["log"]] = ("linear", "log")
ROOM = 1.02  # a curve that rises above the largest starting loss is cut off this far above it


def losses(comparison: Comparison) -> Iterator[Chart]:
    """Draw one chart with a choice of axis; on paper, one panel for each axis."""
    arms = [arm.name for arm in comparison.arms]
    costs = {axis: COLUMNS[axis] for axis in WORDS if axis != "steps"}
    rows = data.recorded(comparison.arms, {"loss": METRIC, **costs})
    if not rows.height:  # a run need not record its costs
        costs, rows = {}, data.recorded(comparison.arms, {"loss": METRIC})
    if not rows.height:
        return
    rows = rows.with_columns(polars.col("step").cast(polars.Float64).alias("steps"))
    axes = ["steps", *costs]
    top, cut = _top(rows)
    tables = {
        "losses": data.thinned(rows),
        "median_losses": data.thinned(data.medians(rows, ["loss", *axes]), by="arm"),
        "targets": polars.DataFrame({"target": list(comparison.targets)}, schema={"target": polars.Float64}),
    }
    note = "Thin: one seed. Bold: the median over the seeds, as far as all of them got."
    note += " Dashed: the target." if comparison.targets else ""
    note += " Curves that rise above the largest loss at the start are cut off." if cut else ""
    views = {
        f"{WORDS[axis]} {scale}": spec(sized(_losses(arms, axis, scale, top, look.picked())))
        for axis in axes
        for scale in SCALES
    }
    yield Chart(
        "losses",
        "Held-out loss",
        f"{note} {data.thinning(rows)}".strip(),
        tables,
        views,
        _panels(arms, axes, top),
        (Choice("against", tuple(WORDS[axis] for axis in axes)), Choice("axis", SCALES)),
    )


def _losses(
    arms: Sequence[str], cost: str, scale: Literal["linear", "log"], top: float | None, pick: alt.Parameter | None
) -> alt.LayerChart:
    x = alt.X(
        f"{cost}:Q",
        title=WORDS[cost],
        scale=alt.Scale(type=scale, nice=scale == "linear"),
        axis=look.large(8 if pick else 5),
    )
    y = alt.Y(
        "loss:Q", title="held-out loss", scale=alt.Scale(zero=False, domainMax=alt.Undefined if top is None else top)
    )
    everything, middle = alt.Chart(look.table("losses")), alt.Chart(look.table("median_losses"))
    if scale == "log":  # the evaluation before the first step has cost nothing
        everything, middle = (chart.transform_filter(alt.datum[cost] > 0) for chart in (everything, middle))
    layers = [
        alt.Chart(look.table("targets"))
        .mark_rule(strokeDash=[5, 4], color="#888")
        .encode(y="target:Q", tooltip=alt.Tooltip("target:Q", title="target")),
        everything.mark_line(clip=True, strokeWidth=1).encode(
            x, y, **look.lines(arms), opacity=look.faded(pick, 0.45), detail="run:N"
        ),
        middle.mark_line(clip=True, strokeWidth=2.5).encode(x, y, **look.lines(arms), opacity=look.faded(pick, 1.0)),
    ]
    if pick is not None:
        spent = () if cost == "steps" else (f"{cost}={WORDS[cost]}",)
        points = everything.mark_circle(clip=True, size=18).encode(
            x,
            y,
            look.colour(arms, symbol="stroke"),
            opacity=look.faded(pick, 0.5),
            tooltip=look.tooltip("seed", "step", "loss=held-out loss", *spent),
        )
        layers.append(points.add_params(pick))
    return look.layered(*layers)


def _panels(arms: Sequence[str], costs: Sequence[str], top: float | None) -> Spec:
    """Draw a small chart for each axis, two in a row."""
    width, height = (WIDTH - 60) // 2, HEIGHT * 3 // 5
    panels = [sized(_losses(arms, cost, "linear", top, None), width, height) for cost in costs]
    return still(alt.concat(*panels, columns=2))


def _top(rows: polars.DataFrame) -> tuple[float | None, bool]:
    """Return the upper end of the loss axis, and whether a curve goes far above its starting loss and is cut off."""
    starts = [value for value in rows.filter(polars.col("step") == 0)["loss"] if value is not None]
    highest = rows["loss"].max()
    if not starts or not isinstance(highest, float) or highest <= ROOM * max(starts):
        return None, False
    return ROOM * max(starts), True
