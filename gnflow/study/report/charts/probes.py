"""Charts of measurements during the run: diagonal dominance, curvature, and the modalities and their conflict."""

from collections.abc import Iterator, Sequence

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, make_spec, make_still, set_size
from gnflow.study.scores import METRIC

WHOLE = (METRIC, "loss/train")  # losses over all data, not of one modality


def draw_probes(comparison: Comparison) -> Iterator[Chart]:
    """Draw a chart for each family of columns that is recorded."""
    yield from _draw_family(
        comparison, "dominance", "dominance/", "Dominance of the diagonal", "dominance ratio", "log",
        "Of the momentum's Gram matrix: smallest, mean and largest over the rows of a matrix, averaged over matrices. "
        "RMNP takes for granted that it is large.",
    )  # fmt: skip
    yield from _draw_family(
        comparison, "curvature", "curvature/eigenvalue/", "Largest eigenvalues", "eigenvalue", "log",
        "Of the Gauss-Newton matrix (ggn) and of the Hessian of the loss on held-out text, the largest first.",
    )  # fmt: skip
    yield from _draw_family(
        comparison, "conflict", "conflict/", "Conflict between modalities", "measure", "linear",
        "Between the gradients of the modalities.",
    )  # fmt: skip
    yield from _draw_family(comparison, "modalities", "loss/", "Loss of each modality", "loss", "linear", "")


def _draw_family(
    comparison: Comparison, name: str, prefix: str, title: str, label: str, scale: str, note: str
) -> Iterator[Chart]:
    frames = [
        data.select_recorded(comparison.arms, {"value": column}).with_columns(
            polars.lit(column.removeprefix(prefix)).alias("measure")
        )
        for column in data.list_columns(comparison.arms, prefix)
        if column not in WHOLE
    ]
    if not frames:
        return
    rows = polars.concat(frames)
    everyone = [arm.name for arm in comparison.arms]
    arms, log = look.list_present(rows, everyone), scale == "log" and bool((rows["value"] > 0).all())
    yield Chart(
        name,
        title,
        f"{note} {data.describe_thinning(frames[0])}".strip(),
        {name: polars.concat([data.thin(frame) for frame in frames])},
        {"": make_spec(set_size(_draw_lines(name, label, everyone, arms, log, look.make_selection())))},
        make_still(set_size(_draw_lines(name, label, everyone, arms, log, None), WIDTH)),
    )


def _draw_lines(
    name: str, label: str, everyone: Sequence[str], arms: Sequence[str], log: bool, pick: alt.Parameter | None
) -> alt.LayerChart:
    base = alt.Chart(look.name_table(name)).encode(
        look.make_step_axis(),
        alt.Y("value:Q", title=label, scale=alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)),
        look.encode_colour(everyone, arms, "stroke"),
    )
    joined = base.mark_line(strokeWidth=1.3).encode(
        look.fade(pick, 0.8), look.style_dashes("measure"), alt.Detail("run:N")
    )
    if pick is None:
        return look.layer(joined)
    points = base.mark_circle(size=16).encode(
        opacity=look.fade(pick, 0.5), tooltip=[alt.Tooltip("measure:N"), *look.make_tooltip("seed", "step", "value")]
    )
    return look.layer(joined, points.add_params(pick))
