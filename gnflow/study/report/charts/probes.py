"""What was measured along the way: dominance of the momentum's diagonal, conflict between modalities."""

from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts.chart import Chart, both, colour, faded, picked, present, table, tooltip


def probes(comparison: Comparison) -> Iterator[Chart]:
    """A chart for each family of columns that there is."""
    yield from _family(
        comparison, "dominance", "Dominance of the diagonal", "dominance ratio", log=True,
        note="Of the momentum's Gram matrix: smallest, mean and largest over the rows of a matrix, averaged over matrices. "
        "RMNP takes for granted that it is large.",
    )  # fmt: skip
    yield from _family(
        comparison, "conflict", "Conflict between modalities", "measure", log=False,
        note="Between the gradients of the modalities.",
    )  # fmt: skip


def _family(comparison: Comparison, prefix: str, title: str, label: str, *, log: bool, note: str) -> Iterator[Chart]:
    everyone = [arm.name for arm in comparison.arms]
    frames = [
        data.recorded(comparison.arms, {"value": name}).with_columns(polars.lit(name.partition("/")[2]).alias("measure"))
        for name in data.names(comparison.arms, f"{prefix}/")
    ]
    if not frames:
        return
    rows = polars.concat(frames)
    positive = bool((rows["value"] > 0).all())
    pick = picked()
    base = alt.Chart(table(prefix)).encode(
        alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="~s")),
        alt.Y("value:Q", title=label, scale=alt.Scale(type="log" if log and positive else "linear", zero=False)),
        colour(everyone, present(rows, everyone)),
    )
    lines = base.mark_line(strokeWidth=1.3).encode(
        faded(pick, 0.8), alt.StrokeDash("measure:N", legend=alt.Legend(title=None)), alt.Detail("run:N")
    )
    points = base.mark_circle(size=16).encode(
        faded(pick, 0.5), tooltip=[alt.Tooltip("measure:N"), *tooltip("seed", "step", "value")]
    )
    views, still = both(alt.layer(lines, points.add_params(pick)))
    thinned = polars.concat([data.thinned(frame) for frame in frames])
    yield Chart(prefix, title, f"{note} {data.thinning(frames[0])}".strip(), {prefix: thinned}, views, still)
