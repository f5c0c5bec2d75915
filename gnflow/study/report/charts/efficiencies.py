"""Tables in colour of the efficiencies that the metric `preconditioners` measured: a row for each direction."""

from collections.abc import Iterator, Mapping

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import Chart, make_spec, make_still

PREFIX = "preconditioners/"
WHAT = (
    "The decrease of the local quadratic model of the loss along a direction, with the best step length, as a part "
    "of the decrease of the exact Gauss-Newton step (1 is best), averaged over seeds"
)
CELL, MARGIN = 24, 720  # pixels: the height of a row, the width of all columns


def draw_efficiencies(comparison: Comparison) -> Iterator[Chart]:
    """Draw the efficiencies by batch, by step and by kind of matrix."""
    rows = collect_efficiencies(comparison)
    if not rows.height:
        return
    whole = rows.filter(polars.col("part").is_in(["", "joint"]))
    largest = rows.filter((polars.col("batch") == rows["batch"].max()) & (polars.col("judge") == "fresh"))
    kinds = largest.filter(~polars.col("part").str.starts_with("blocks.") & ~polars.col("part").is_in(["", "joint"]))
    joint = polars.when(polars.col("part") == "joint").then(polars.lit(", joint")).otherwise(polars.lit(""))
    batch = polars.concat_str("judge", polars.lit(" "), "batch", joint)
    yield _draw(
        "efficiencies", "Efficiency of directions",
        f"{WHAT} and over the measured steps. `same` is the batch that a direction was taken on, `fresh` another; the "
        "number is that of its micro-batches. `joint` takes all matrices together, all else is the mean over matrices.",
        whole.with_columns(batch.alias("measure")),
    )  # fmt: skip
    yield _draw(
        "efficiencies_steps", "Efficiency of directions by step", f"{WHAT}, on a fresh batch of the largest size.",
        largest.filter(polars.col("part") == "").with_columns(polars.format("step {}", "step").alias("measure")),
    )  # fmt: skip
    yield _draw(
        "efficiencies_kinds", "Efficiency of directions by kind of matrix",
        f"{WHAT} and over the measured steps, on a fresh batch of the largest size.",
        kinds.with_columns(polars.col("part").alias("measure")),
    )  # fmt: skip


def collect_efficiencies(comparison: Comparison) -> polars.DataFrame:
    """Return arm, seed, step, direction, judge, batch, part and value of everything that was measured."""
    frames = []
    for column in data.list_columns(comparison.arms, PREFIX):
        direction, judge, *rest = column.removeprefix(PREFIX).split("/", 3)
        if direction == "residual":
            continue
        named: Mapping[str, polars.Expr] = {
            "direction": polars.lit(direction),
            "judge": polars.lit(judge),
            "batch": polars.lit(int(rest[0]), dtype=polars.Int64),
            "part": polars.lit("".join(rest[1:])),
        }
        rows = data.select_recorded(comparison.arms, {"value": column})
        frames += [rows.with_columns(**named)] if rows.height else []
    return polars.concat(frames) if frames else polars.DataFrame()


def _draw(name: str, title: str, note: str, rows: polars.DataFrame) -> Chart:
    arms = rows["arm"].n_unique()
    column = polars.col("measure") if arms == 1 else polars.format("{}: {}", "arm", "measure")
    ordered = rows.sort("arm", "judge", "batch", "step", "part", maintain_order=True).with_columns(
        column.alias("column")
    )
    order = ordered["column"].unique(maintain_order=True).to_list()
    table = ordered.group_by("direction", "column", maintain_order=True).agg(polars.col("value").mean())
    best = table.group_by("direction").agg(polars.col("value").mean()).sort("value", descending=True)
    axis = alt.Axis(orient="top", labelAngle=-45, labelLimit=260, labelOverlap=False)
    base = alt.Chart(look.name_table(name)).encode(
        alt.X("column:N", title=None, sort=order, axis=axis),
        alt.Y("direction:N", title=None, sort=best["direction"].to_list()),
    )
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), legend=None)
    cells = base.mark_rect().encode(
        colour, tooltip=["direction:N", "column:N", alt.Tooltip("value:Q", title="efficiency", format=".4g")]
    )
    shade = alt.ColorValue("white", condition={"test": "datum.value > 0.6", "value": "black"})
    numbers = base.mark_text(fontSize=11).encode(shade, text=alt.Text("value:Q", format=".2f"))
    drawing = look.layer(cells, numbers).properties(height=CELL * best.height)
    return Chart(
        name,
        title,
        note,
        {name: table},
        {"": make_spec(drawing.properties(width="container"))},
        make_still(drawing.properties(width=MARGIN)),
    )
