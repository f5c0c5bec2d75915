"""Charts of how many times more each arm needs than the reference, with intervals."""

import math
from collections.abc import Iterator, Sequence

import altair as alt
import polars

from gnflow.study import figures
from gnflow.study.comparison import Comparison
from gnflow.study.ratios import Estimate, Ratio
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, Choice, make_spec, make_still, set_size
from gnflow.study.scores import WORDS

ROOM = 2.0  # how far beyond the factors themselves an interval is followed
BAND = 22  # pixels for one arm


def draw_ratios(comparison: Comparison) -> Iterator[Chart]:
    """Draw a point with its interval for each arm on a log axis, the best arm first, for each cost and target."""
    targets = [target for target in comparison.targets if any(_select_known(comparison, target))]
    if not targets:
        return
    found = [(target, *known) for target in targets[::-1] for known in _select_known(comparison, target)]
    axes = [axis for axis in WORDS if any(axis == known for _, _, known, _ in found)]
    ends = {axis: _find_ends([each.factor or 1.0 for *_, known, each in found if known == axis]) for axis in axes}
    rows = polars.DataFrame(
        [_make_row(ratio, axis, estimate, *ends[axis]) for _, ratio, axis, estimate in found], infer_schema_length=None
    )
    order = _order_arms(comparison, targets[-1])
    height = max(110, BAND * len(order) + 30)
    drawn = {
        (axis, target): _draw_points(comparison, order, axis, target, *ends[axis])
        for axis in axes
        for target in targets[::-1]
    }
    several = len(targets) > 1
    views = {
        f"{WORDS[axis]} {target:g}" if several else WORDS[axis]: make_spec(set_size(drawing, height=height))
        for (axis, target), drawing in drawn.items()
    }
    known = {ratio.other for target, ratio, *_ in found if target == targets[-1]}
    missing = [name for name in order if name not in known and name != comparison.reference]
    note = (
        "Right of 1 the reference needs less. Bars: 95 % intervals of Student's t over seeds, where there are two or "
        "more. A triangle: the bar goes on, or the factor is only a bound, because a run missed the target."
    )
    note += f" Not shown, since nothing is known of the ratio: {figures.join_words(missing)}." if missing else ""
    choices: tuple[Choice, ...] = (Choice("cost", tuple(WORDS[axis] for axis in axes)),)
    choices += (Choice("target", tuple(f"{target:g}" for target in targets[::-1])),) if several else ()
    yield Chart(
        "ratios",
        f"Cost relative to {comparison.reference}",
        note,
        {"ratios": rows},
        views,
        make_still(set_size(drawn[axes[0], targets[-1]], WIDTH - 60, height)),
        choices,
    )


def _find_ends(factors: Sequence[float]) -> tuple[float, float]:
    return min(1.0, *factors) / ROOM, max(1.0, *factors) * ROOM


def _order_arms(comparison: Comparison, target: float) -> list[str]:
    """List the arms by their steps to a target, the fewest first."""
    results = comparison.select_results(target)
    return [result.arm for result in sorted(results, key=lambda one: (one.median["steps"], -one.reached))]


def _select_known(comparison: Comparison, target: float) -> Iterator[tuple[Ratio, str, Estimate]]:
    """Select the ratios that can be drawn."""
    for ratio in comparison.ratios:
        if ratio.target == target:
            for axis, estimate in ratio.axes.items():
                if estimate.factor and math.isfinite(estimate.factor):
                    yield ratio, axis, estimate


def _make_row(ratio: Ratio, axis: str, estimate: Estimate, low: float, high: float) -> dict[str, object]:
    """Cut the interval to the range of the axis, and mark the ends that continue."""
    factor = estimate.factor or 1.0
    ends = estimate.interval or (factor, factor)
    left = low if estimate.bound == "at most" else max(ends[0], low)
    right = high if estimate.bound == "at least" else min(ends[1], high)
    return {
        "arm": ratio.other,
        "axis": WORDS[axis],
        "target": ratio.target,
        "factor": factor,
        "bound": "" if estimate.bound == "exact" else estimate.bound,
        "low": left,
        "high": right,
        "interval": f"{_format_end(ends[0])} to {_format_end(ends[1])}" if estimate.interval else "one seed",
        "left": left if left == low else None,
        "right": right if right == high else None,
    }


def _format_end(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else "no limit"


def _draw_points(
    comparison: Comparison, order: list[str], axis: str, target: float, low: float, high: float
) -> alt.LayerChart:
    arms = [arm.name for arm in comparison.arms]
    base = alt.Chart(look.name_table("ratios")).transform_filter(
        (alt.datum.target == target) & (alt.datum.axis == WORDS[axis])
    )
    x = alt.X(
        "factor:Q",
        title=f"{WORDS[axis]}, times those of {comparison.reference}, to {target:g}",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format="~g", tickCount=8),
    )
    y = alt.Y("arm:N", title=None, sort=order, scale=alt.Scale(domain=order), axis=alt.Axis(labelLimit=220))
    hover = [*look.make_tooltip("factor"), alt.Tooltip("bound:N"), alt.Tooltip("interval:N")]
    colours = alt.Scale(domain=arms, range=look.list_colours(arms))
    shared = {"y": y, "color": alt.Color("arm:N", scale=colours, legend=None)}
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", **shared)
    middle = base.mark_point(filled=True, size=80).encode(x=x, **shared, tooltip=hover)
    arrows = [
        base.transform_filter(f"isValid(datum.{side})")
        .mark_point(filled=True, size=60, shape=f"triangle-{side}")
        .encode(x=alt.X(f"{side}:Q"), **shared, tooltip=hover)
        for side in ("left", "right")
    ]
    reference = (
        alt.Chart(look.name_table("ratios"))
        .transform_aggregate(rows="count()")
        .mark_point(shape="diamond", filled=True, size=70, color="#888")
        .encode(x=alt.XDatum(1), y=alt.YDatum(comparison.reference))
    )
    return look.layer(look.draw_rule("ratios", x=1), bars, *arrows, middle, reference)
