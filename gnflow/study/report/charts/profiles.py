"""Charts of performance profiles: the fraction of problems on which each arm is within a factor of the best."""

from collections.abc import Iterator

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import WIDTH, Chart, Choice, make_spec, make_still, set_size
from gnflow.study.scores import WORDS


def draw_profiles(comparison: Comparison) -> Iterator[Chart]:
    """Draw, for each axis, the fraction of problems that an arm solves within a factor of the best."""
    found = {axis: comparison.profiles[axis] for axis in WORDS if axis in comparison.profiles}
    if not found:
        return
    arms = [arm.name for arm in comparison.arms]
    end = 1.1 * max(
        [4.0, *(tau for profile in found.values() for curve in profile.curves.values() for tau, _ in curve)]
    )
    rows = [
        {"axis": axis, "arm": arm, "tau": tau, "share": share}
        for axis, profile in found.items()
        for arm in arms
        for tau, share in _extend(profile.curves.get(arm, ()), end)
    ]
    problems = len(next(iter(found.values())).problems)
    pick = look.make_selection()

    def draw(axis: str) -> alt.LayerChart:
        curves = (
            alt.Chart(look.name_table("profiles"))
            .transform_filter(alt.datum.axis == axis)
            .mark_line(interpolate="step-after", strokeWidth=2.5)
            .encode(
                alt.X(
                    "tau:Q",
                    title=f"{WORDS[axis]}, times those of the best arm",
                    scale=alt.Scale(type="log", nice=False),
                ),
                alt.Y("share:Q", title="share of problems", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
                opacity=look.fade(pick, 1.0),
                **look.style_lines(arms),
                tooltip=look.make_tooltip("tau=factor", "share"),
            )
            .add_params(pick)
        )
        return look.layer(curves)

    yield Chart(
        "profiles",
        "Performance profile",
        f"The share of {problems} problems (a target and a seed each) that an arm solves at no more than so many times "
        "the cost of the best arm there. Higher is better; at 1 it is the share that it wins.",
        {"profiles": polars.DataFrame(rows)},
        {WORDS[axis]: make_spec(set_size(draw(axis))) for axis in found},
        make_still(set_size(draw(next(iter(found))), WIDTH)),
        (Choice("cost", tuple(WORDS[axis] for axis in found)),),
    )


def _extend(curve: tuple[tuple[float, float], ...], end: float) -> list[tuple[float, float]]:
    """Extend a curve to the whole axis: from 1, with no problem solved before its first rise, to the end."""
    before = [] if curve and curve[0][0] <= 1 else [(1.0, 0.0)]
    return [*before, *curve, (end, curve[-1][1] if curve else 0.0)]
