"""Charts of measurements during the run: diagonal dominance, curvature, and the modalities and their conflict."""

from collections.abc import Iterator, Sequence

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, sized, spec, still
from gnflow.study.scores import METRIC

WHOLE = (METRIC, "loss/train")  # losses over all data, not of one modality


def probes(comparison: Comparison) -> Iterator[Chart]:
    """Draw a chart for each family of columns that is recorded."""
    yield from _family(
        comparison, "dominance", "dominance/", "Dominance of the diagonal", "dominance ratio", "log",
        "Of the momentum's Gram matrix: smallest, mean and largest over the rows of a matrix, averaged over matrices. "
        "RMNP takes for granted that it is large.",
    )  # fmt: skip
    yield from _family(
        comparison, "curvature", "curvature/eigenvalue/", "Largest eigenvalues", "eigenvalue", "log",
        "Of the Gauss-Newton matrix (ggn) and of the Hessian of the loss on held-out text, the largest first.",
    )  # fmt: skip
    yield from _family(
        comparison, "conflict", "conflict/", "Conflict between modalities", "measure", "linear",
        "Between the gradients of the modalities.",
    )  # fmt: skip
    yield from _family(comparison, "modalities", "loss/", "Loss of each modality", "loss", "linear", "")


def _family(
    comparison: Comparison, name: str, prefix: str, title: str, label: str, scale: str, note: str
) -> Iterator[Chart]:
    frames = [
        data.recorded(comparison.arms, {"value": column}).with_columns(
            polars.lit(column.removeprefix(prefix)).alias("measure")
        )
        for column in data.names(comparison.arms, prefix)
        if column not in WHOLE
    ]
    if not frames:
        return
    rows = polars.concat(frames)
    everyone = [arm.name for arm in comparison.arms]
    arms, log = look.present(rows, everyone), scale == "log" and bool((rows["value"] > 0).all())
    yield Chart(
        name,
        title,
        f"{note} {data.thinning(frames[0])}".strip(),
        {name: polars.concat([data.thinned(frame) for frame in frames])},
        {"": spec(sized(_drawing(name, label, everyone, arms, log, look.picked())))},
        still(sized(_drawing(name, label, everyone, arms, log, None), WIDTH)),
    )


def _drawing(
    name: str, label: str, everyone: Sequence[str], arms: Sequence[str], log: bool, pick: alt.Parameter | None
) -> alt.LayerChart:
    base = alt.Chart(look.table(name)).encode(
        look.steps(),
        alt.Y("value:Q", title=label, scale=alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)),
        look.colour(everyone, arms, "stroke"),
    )
    joined = base.mark_line(strokeWidth=1.3).encode(look.faded(pick, 0.8), look.dashes("measure"), alt.Detail("run:N"))
    if pick is None:
        return look.layered(joined)
    points = base.mark_circle(size=16).encode(
        opacity=look.faded(pick, 0.5), tooltip=[alt.Tooltip("measure:N"), *look.tooltip("seed", "step", "value")]
    )
    return look.layered(joined, points.add_params(pick))
