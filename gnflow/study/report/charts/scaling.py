"""Charts of the number of steps to the target against the batch size, which show where larger batches stop helping."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import altair as alt
import polars

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.comparison import Comparison
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import Chart, make_both
from gnflow.study.scores import select_numbers
from gnflow.track.description import flatten

# Keys of `optimizer:` that set the size of a step, or that are tuned again for another size.
OF_THE_BATCH = ("microbatches", "inner_steps", "learning_rate", "leaves")


class Point(NamedTuple):
    """An arm and the size of its steps."""

    arm: str
    method: str
    batch: float
    """Number of tokens that one step solves on."""
    steps: float
    """Median number of steps to the target, over the seeds."""


def draw_batch_sizes(comparison: Comparison) -> Iterator[Chart]:
    """Draw steps against batch size on log axes, with the line of perfect scaling, if batch sizes differ."""
    if comparison.headline is None:
        return
    arms = [arm.name for arm in comparison.arms]
    results = {result.arm: result for result in comparison.select_results(comparison.headline)}
    medians = sorted(
        _make_points(comparison.arms, {arm: results[arm].median["steps"] for arm in arms}),
        key=lambda point: (point.method, point.batch),
    )
    if len({point.batch for point in medians}) < 2:
        return
    sizes = {point.arm: point.batch for point in medians}
    seeds = [
        {"arm": arm, "batch": sizes[arm], "seed": score.seed, "steps": steps}
        for arm in sizes
        for score, steps in zip(results[arm].scores, results[arm].needed["steps"], strict=True)
        if math.isfinite(steps)
    ]
    missing = [arm for arm in arms if arm not in sizes]
    views, still = make_both(_draw_points(arms))
    yield Chart(
        "batch_size",
        "Steps to target against batch size",
        f"To {comparison.headline:g}. Large: the median over seeds; lines join arms of one method. Dashed: perfect "
        "scaling from the smallest batch of each method, where twice the tokens halve the steps."
        + (f" Not shown, since most of its seeds missed: {figures.join_words(missing)}." if missing else ""),
        {
            "batches": polars.DataFrame(seeds),
            "batch_medians": polars.DataFrame(medians),
            "batch_ideal": polars.DataFrame(list(_make_ideal(medians))),
        },
        views,
        still,
    )


def _draw_points(arms: list[str]) -> alt.LayerChart:
    pick = look.make_selection()
    x = alt.X(
        "batch:Q",
        title="tokens of one step",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=look.make_large_axis(),
    )
    y = alt.Y(
        "steps:Q",
        title="steps to target",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=look.make_large_axis(6),
    )
    ideal = (
        alt.Chart(look.name_table("batch_ideal"))
        .mark_line(strokeDash=[5, 4], strokeWidth=1, color="#888")
        .encode(x, y, detail="method:N")
    )
    joined = (
        alt.Chart(look.name_table("batch_medians"))
        .mark_line(strokeWidth=1.5, color="#888")
        .encode(x, y, detail="method:N")
    )
    middle = (
        alt.Chart(look.name_table("batch_medians"))
        .mark_point(filled=True, size=110)
        .encode(
            x,
            y,
            **look.style_points(arms),
            opacity=look.fade(pick, 1.0),
            tooltip=[*look.make_tooltip("batch=tokens of one step", "steps=median steps"), alt.Tooltip("method:N")],
        )
    )
    seeds = (
        alt.Chart(look.name_table("batches"))
        .mark_point(filled=True, size=30)
        .encode(
            x,
            y,
            **look.style_points(arms),
            opacity=look.fade(pick, 0.5),
            tooltip=look.make_tooltip("seed", "batch=tokens of one step", "steps"),
        )
    )
    return look.layer(ideal, joined, seeds, middle.add_params(pick))


def _make_points(arms: Sequence[Arm], steps: Mapping[str, float]) -> Iterator[Point]:
    """Group arms that differ only in batch size and learning rates into methods, named by their first arm."""
    first: dict[tuple[tuple[str, str], ...], str] = {}
    for arm in arms:
        method = first.setdefault(_identify_method(arm), arm.name)
        batch = select_numbers(arm.runs[0].plan.get("step")).get("tokens/solve")
        if batch and math.isfinite(steps[arm.name]) and steps[arm.name] > 0:
            yield Point(arm.name, method, batch, steps[arm.name])


def _identify_method(arm: Arm) -> tuple[tuple[str, str], ...]:
    spec = arm.runs[0].experiment.optimizer.model_dump(mode="json")
    return tuple((key, value) for key, value in flatten(spec) if key.rpartition(".")[2] not in OF_THE_BATCH)


def _make_ideal(points: Sequence[Point]) -> Iterator[Point]:
    """Draw steps * batch = constant from the smallest batch of each method to the largest batch of all."""
    largest = max(point.batch for point in points)
    for method in dict.fromkeys(point.method for point in points):
        start = min((point for point in points if point.method == method), key=lambda point: point.batch)
        if start.batch < largest:
            yield from (start, start._replace(batch=largest, steps=start.steps * start.batch / largest))
