"""Held-out loss against each of the five axes, and the loss of each modality."""

from collections.abc import Iterator, Sequence

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts.chart import (
    HEIGHT, WIDTH, Chart, Choice, Spec, both, colour, dash, faded, picked, sized, spec, table, tooltip,
)  # fmt: skip
from gnflow.study.scores import COLUMNS, METRIC, WORDS

ROOM = 1.02  # a curve that rises above the largest starting loss is cut off this far above it


def losses(comparison: Comparison) -> Iterator[Chart]:
    """One chart with a choice of axis; five on paper."""
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
        "targets": polars.DataFrame({"target": list(comparison.targets)}),
    }
    note = "Thin: one seed. Bold: the median over the seeds, as far as all of them got. Dashed: the target."
    note += " Curves that rise above the largest loss at the start are cut off." if cut else ""
    views = {
        f"{WORDS[axis]} {scale}": spec(sized(_losses(arms, axis, scale, top)))
        for axis in axes
        for scale in ("linear", "log")
    }
    yield Chart(
        "losses",
        "Held-out loss",
        f"{note} {data.thinning(rows)}".strip(),
        tables,
        views,
        _panels(arms, axes, top),
        (Choice("against", tuple(WORDS[axis] for axis in axes)), Choice("axis", ("linear", "log"))),
    )


def modalities(comparison: Comparison) -> Iterator[Chart]:
    """The loss of each modality, where there are several."""
    arms = [arm.name for arm in comparison.arms]
    found = [name for name in data.names(comparison.arms, "loss/") if name not in (METRIC, "loss/train")]
    frames = [
        rows.with_columns(polars.lit(name.removeprefix("loss/")).alias("modality"))
        for name in found
        if (rows := data.recorded(comparison.arms, {"loss": name})).height
    ]
    if not frames:
        return
    rows = polars.concat([data.thinned(frame) for frame in frames])
    pick = picked()
    lines = alt.Chart(table("modality_losses")).mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=14)).encode(
        alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1)),
        alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
        colour(arms),
        alt.StrokeDash("modality:N", legend=alt.Legend(title=None)),
        faded(pick, 0.9),
        detail="run:N",
        tooltip=[alt.Tooltip("modality:N"), *tooltip("seed", "step", "loss")],
    ).add_params(pick)
    views, still = both(alt.layer(lines))
    yield Chart(
        "modalities", "Loss of each modality", data.thinning(frames[0]), {"modality_losses": rows}, views, still
    )


def _losses(arms: Sequence[str], axis: str, scale: str, top: float | None) -> alt.LayerChart:
    pick = picked()
    x = alt.X(
        f"{axis}:Q",
        title=WORDS[axis],
        scale=alt.Scale(type="log" if scale == "log" else "linear", nice=scale != "log"),
        axis=alt.Axis(format="~s", tickCount=8),
    )
    y = alt.Y(
        "loss:Q", title="held-out loss", scale=alt.Scale(zero=False, **({} if top is None else {"domainMax": top}))
    )
    all_rows, median_rows = alt.Chart(table("losses")), alt.Chart(table("median_losses"))
    if scale == "log":  # what was there before the first step has cost nothing
        spent = alt.datum[axis] > 0
        all_rows, median_rows = all_rows.transform_filter(spent), median_rows.transform_filter(spent)
    shown = {"x": x, "y": y, "color": colour(arms), "strokeDash": dash(arms)}
    seeds = all_rows.mark_line(clip=True, strokeWidth=1).encode(**shown, opacity=faded(pick, 0.45), detail="run:N")
    middle = median_rows.mark_line(clip=True, strokeWidth=2.5).encode(**shown, opacity=faded(pick, 1.0))
    points = all_rows.mark_circle(clip=True, size=16).encode(
        x, y, colour(arms), opacity=faded(pick, 0.55), tooltip=tooltip("seed", "step", "loss=held-out loss", *_costs(axis))
    )
    target = alt.Chart(table("targets")).mark_rule(strokeDash=[5, 4], color="#888").encode(
        y="target:Q", tooltip=[alt.Tooltip("target:Q", title="target")]
    )
    return alt.layer(target, seeds, middle, points.add_params(pick))


def _costs(axis: str) -> tuple[str, ...]:
    return () if axis == "steps" else (f"{axis}={WORDS[axis]}",)


def _panels(arms: Sequence[str], axes: Sequence[str], top: float | None) -> Spec:
    """A small chart for each axis, two in a row."""
    width, height = (WIDTH - 60) // 2, HEIGHT * 3 // 5
    panels = [sized(_losses(arms, axis, "linear", top), width, height) for axis in axes]
    return spec(alt.concat(*panels, columns=2) if len(panels) > 1 else sized(_losses(arms, axes[0], "linear", top), WIDTH))


def _top(rows: polars.DataFrame) -> tuple[float | None, bool]:
    """The end of the loss axis where curves go far above where they began; and whether one does."""
    starts = [value for value in rows.filter(polars.col("step") == 0)["loss"] if value is not None]
    highest = rows["loss"].max()
    if not starts or not isinstance(highest, float) or highest <= ROOM * max(starts):
        return None, False
    return ROOM * max(starts), True
