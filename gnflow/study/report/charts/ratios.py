"""Charts of how many times more each arm needs than the reference, with intervals."""

import math
from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.ratios import Estimate, Ratio
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, Choice, make_spec, make_still, set_size
from gnflow.study.scores import WORDS

ROOM = 2.0  # how far beyond the factors themselves an interval is followed
BAND, MOST_HEIGHT = 22, 900  # pixels for one arm on an axis, and for all arms


def draw_ratios(comparison: Comparison) -> Iterator[Chart]:
    """Draw points with error bars on a log axis, by axis and arm, with a choice of target if there are several."""
    targets = [target for target in comparison.targets if any(_select_known(comparison, target))]
    if not targets:
        return
    arms = [arm.name for arm in comparison.arms]
    others = [arm for arm in arms if arm != comparison.reference]
    factors = [
        estimate.factor for target in targets for _, _, estimate in _select_known(comparison, target) if estimate.factor
    ]
    low, high = min(1.0, *factors) / ROOM, max(1.0, *factors) * ROOM
    rows = polars.DataFrame(
        [
            _make_row(ratio, axis, estimate, low, high)
            for target in targets
            for ratio, axis, estimate in _select_known(comparison, target)
        ]
    )
    height = max(160, min(BAND * len(others) * len(WORDS), MOST_HEIGHT))
    drawn = {
        f"{target:g}": _draw_points(arms, others, target, str(comparison.reference), low, high) for target in targets
    }
    headline = f"{targets[-1]:g}"
    views = {name: make_spec(set_size(drawing, height=height)) for name, drawing in list(drawn.items())[::-1]}
    note = (
        "Right of 1 the reference needs less. Bars: 95 % intervals of Student's t over seeds, where there are two or "
        "more. A triangle: the bar goes on, or the factor is only a bound, because a run missed the target."
    )
    yield Chart(
        "ratios",
        f"Cost relative to {comparison.reference}",
        note,
        {"ratios": rows},
        views,
        make_still(set_size(drawn[headline], WIDTH - 60, height)),
        (Choice("target", tuple(views)),) if len(views) > 1 else (),
    )


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
    arms: list[str], others: list[str], target: float, reference: str, low: float, high: float
) -> alt.LayerChart:
    pick = look.make_selection()
    base = alt.Chart(look.name_table("ratios")).transform_filter(alt.datum.target == target)
    x = alt.X(
        "factor:Q",
        title=f"times the cost of {reference}, to {target:g}",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format="~g", tickCount=8),
    )
    y = alt.Y("axis:N", title=None, sort=list(WORDS.values()))
    offset = alt.YOffset("arm:N", sort=others, scale=alt.Scale(domain=others, paddingOuter=0.3))
    hover = [
        alt.Tooltip("axis:N", title="cost"),
        *look.make_tooltip("factor"),
        alt.Tooltip("bound:N"),
        alt.Tooltip("interval:N"),
    ]
    dots = look.style_points(arms, others)
    shared = {"y": y, "yOffset": offset, "color": dots["color"], "opacity": look.fade(pick, 1.0)}
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", **shared)
    middle = base.mark_point(filled=True, size=80).encode(x=x, **(shared | dots), tooltip=hover)
    arrows = [
        base.transform_filter(f"isValid(datum.{side})")
        .mark_point(filled=True, size=60, shape=f"triangle-{side}")
        .encode(x=alt.X(f"{side}:Q"), **shared, tooltip=hover)
        for side in ("left", "right")
    ]
    return look.layer(look.draw_rule("ratios", x=1), bars, *arrows, middle.add_params(pick))
