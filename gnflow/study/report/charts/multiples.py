"""Loss curves of many arms: a small chart for each group, over the curves of all other arms in grey."""

from collections.abc import Mapping, Sequence

import altair as alt
import polars

from gnflow.study.comparison import Comparison
from gnflow.study.groups import Member, group_arms
from gnflow.study.report import data
from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import Chart, Choice, Spec
from gnflow.study.scores import WORDS

COLUMNS = 3  # small charts in a row of the still picture; on the screen as many as fit
WIDTH, HEIGHT = 210, 170  # pixels of one
LINE = 13  # pixels of a line of text


def draw_small_multiples(
    comparison: Comparison, rows: polars.DataFrame, axes: Sequence[str], top: float | None, cut: bool
) -> Chart:
    """Draw the median curves with their names, one panel for each group, for each axis."""
    arms = [arm.name for arm in comparison.arms]
    members = group_arms(arms, len(look.COLOURS))
    medians = data.thin(data.compute_medians(rows, ["loss", *axes]), by="arm")
    tables = {
        "groups": _add_groups(medians, members),
        "median_losses": medians,
        "targets": polars.DataFrame({"target": list(comparison.targets)}, schema={"target": polars.Float64}),
    }
    note = "Medians over the seeds, as far as all of them got. Grey: all other arms."
    note += " Dashed: the target." if comparison.targets else ""
    note += " Curves that rise above the largest loss at the start are cut off." if cut else ""
    drawn = {axis: _draw(arms, members, axis, top) for axis in axes}
    return Chart(
        "losses",
        "Held-out loss",
        note,
        tables,
        {
            WORDS[axis]: {**drawing, "config": look.THEME | {"background": "transparent"}}
            for axis, drawing in drawn.items()
        },
        {**drawn[axes[0]], "config": look.THEME | {"background": "white", "aria": False}},
        (Choice("against", tuple(WORDS[axis] for axis in axes)),),
    )


def _add_groups(medians: polars.DataFrame, members: Mapping[str, Member]) -> polars.DataFrame:
    """Add the group and the level of every arm, and mark the last point of each curve."""
    last = polars.int_range(polars.len()).over("arm") == polars.len().over("arm") - 1
    return medians.with_columns(
        polars.col("arm").replace_strict({name: member.group for name, member in members.items()}).alias("group"),
        polars.col("arm").replace_strict({name: member.level for name, member in members.items()}).alias("level"),
        polars.col("arm").replace_strict({name: member.rank for name, member in members.items()}).alias("rank"),
        last.alias("last"),
    )


def _name_level(base: alt.Chart, colour: alt.Color, rank: int) -> alt.Chart:
    """Write the name of a level in its colour in the upper right corner, which curves that fall leave empty."""
    ends: alt.Chart = base.transform_filter(alt.datum.last & (alt.datum.rank == rank))
    named: alt.Chart = ends.mark_text(align="right", baseline="top", fontSize=11, fontWeight="bold").encode(
        colour, x=alt.value("width"), y=alt.value(4 + LINE * rank), text="level:N"
    )
    return named


def _draw(arms: Sequence[str], members: Mapping[str, Member], axis: str, top: float | None) -> Spec:
    x = alt.X(f"{axis}:Q", title=WORDS[axis], scale=alt.Scale(nice=False), axis=look.make_large_axis(4))
    y = alt.Y(
        "loss:Q", title="held-out loss", scale=alt.Scale(zero=False, domainMax=alt.Undefined if top is None else top)
    )
    colour = alt.Color("arm:N", scale=alt.Scale(domain=list(arms), range=look.list_colours(arms)), legend=None)
    dash = alt.StrokeDash("arm:N", scale=alt.Scale(domain=list(arms), range=look.list_dashes(arms)), legend=None)
    base = alt.Chart()
    grey = alt.Chart(look.name_table("median_losses"))
    targets = alt.Chart(look.name_table("targets"))
    panel = alt.layer(
        grey.mark_line(clip=True, strokeWidth=1, color="#999", opacity=0.3).encode(x, y, detail="arm:N"),
        targets.mark_rule(strokeDash=[5, 4], color="#888").encode(y="target:Q"),
        base.mark_line(clip=True, strokeWidth=2).encode(
            x, y, colour, dash, tooltip=look.make_tooltip("step", "loss=held-out loss")
        ),
        *(_name_level(base, colour, rank) for rank in range(max(member.size for member in members.values()))),
    ).properties(width=WIDTH, height=HEIGHT)
    groups = list(dict.fromkeys(member.group for member in members.values()))
    facet = alt.Facet("group:N", sort=groups, header=alt.Header(title=None, labelFontWeight="bold"))
    return panel.facet(facet, data=look.name_table("groups"), columns=COLUMNS).to_dict()
