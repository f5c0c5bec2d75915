"""The look that all charts share: a colour for each arm, lines and points, axes, tooltips."""

from collections.abc import Sequence
from typing import TypeVar

import altair as alt
import polars

from gnflow.study.groups import Member, group_arms

# Okabe and Ito's colours, which readers with any colour vision can distinguish on white and on black. In a grey print
# some are equally dark, so lines have dashes too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
SHAPES = ("circle", "square", "triangle-up", "diamond")  # shapes distinguish arms of the same colour
DARKEST, LIGHTEST = -0.25, 0.4  # how much black or white is mixed into a colour for the ends of a group
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])  # dashes do the same for lines
FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
DASHED = 700  # size of a line in a legend: long enough for one period of each of the dashes
LEGEND_CHARACTERS = 95  # number of names that fit on one line of a legend
THEME = {
    "font": FONT,
    "padding": 6,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "labelOverlap": "greedy", "labelSeparation": 4,
        "titleFontSize": 13, "titleFontWeight": "normal", "titlePadding": 8,
        "gridColor": "#e4e4e4", "domainColor": "#888", "tickColor": "#888", "labelColor": "#222", "titleColor": "#222",
    },
    "legend": {
        "orient": "top", "title": None, "labelFontSize": 12, "labelLimit": 320, "symbolStrokeWidth": 3,
        "labelColor": "#222", "columnPadding": 18,
    },
    "title": {"fontSize": 13, "fontWeight": "normal", "color": "#222", "anchor": "start"},
    "header": {"labelFontSize": 12, "title": None},
}  # fmt: skip

T = TypeVar("T")


def name_table(name: str) -> alt.NamedData:
    """Refer to a table of the chart by its name."""
    return alt.NamedData(name)


def layer(*charts: alt.Chart) -> alt.LayerChart:
    """Draw layers on top of each other."""
    return alt.LayerChart(layer=list(charts))


def make_selection() -> alt.Parameter:
    """Make the selection of the arm that is clicked in the legend, with a fixed name, unlike those of Altair."""
    return alt.selection_point(name="picked", fields=["arm"], bind="legend", toggle="true")


def fade(pick: alt.Parameter | None, opacity: float) -> alt.OpacityValue:
    """Return `opacity`, and almost 0 while another arm is selected."""
    if pick is None:
        return alt.OpacityValue(opacity)
    return alt.OpacityValue(0.06, condition={"param": pick.name, "value": opacity})


def encode_colour(arms: Sequence[str], shown: Sequence[str] | None = None, symbol: str | None = "circle") -> alt.Color:
    """Give each arm the same colour in every chart; the legend names the arms that are `shown` in this one."""
    scale = alt.Scale(domain=list(arms), range=list_colours(arms))
    return alt.Color("arm:N", scale=scale, legend=_make_legend(arms if shown is None else shown, symbol))


def style_lines(arms: Sequence[str], shown: Sequence[str] | None = None) -> dict[str, alt.Color | alt.StrokeDash]:
    """Style lines by colour and by dashes."""
    scale, legend = alt.Scale(domain=list(arms), range=list_dashes(arms)), _make_legend(shown or arms, "stroke")
    return {
        "color": encode_colour(arms, shown, "stroke"),
        "strokeDash": alt.StrokeDash("arm:N", scale=scale, legend=legend),
    }


def style_points(arms: Sequence[str], shown: Sequence[str] | None = None) -> dict[str, alt.Color | alt.Shape]:
    """Style points by colour, and by shape if there are more arms than colours."""
    if len(arms) <= len(COLOURS):
        return {"color": encode_colour(arms, shown)}
    scale, legend = alt.Scale(domain=list(arms), range=_repeat_kinds(arms, SHAPES)), _make_legend(shown or arms, None)
    return {"color": encode_colour(arms, shown, None), "shape": alt.Shape("arm:N", scale=scale, legend=legend)}


def style_dashes(column: str) -> alt.StrokeDash:
    """Distinguish lines of the same arm."""
    return alt.StrokeDash(f"{column}:N", legend=alt.Legend(symbolType="stroke"))


def list_colours(arms: Sequence[str]) -> list[str]:
    """Return the colour of each arm: that of its group, darker or lighter by its level."""
    members = group_arms(arms, len(COLOURS))
    return [_shade(COLOURS[members[name].place % len(COLOURS)], members[name]) for name in arms]


def _shade(colour: str, member: Member) -> str:
    """Mix a colour with black for the first level of its group, and with white for the last."""
    if member.size == 1:
        return colour
    part = DARKEST + (LIGHTEST - DARKEST) * member.rank / (member.size - 1)
    other = 255 if part > 0 else 0
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(value + (other - value) * abs(part)):02x}" for value in parts)


def list_dashes(arms: Sequence[str]) -> list[list[int]]:
    """Return the dashes of each arm: those of its level in its group, if there are more arms than colours."""
    if len(arms) > len(COLOURS):
        return _repeat_kinds(arms, DASHES)
    return [DASHES[(place + place // len(DASHES)) % len(DASHES)] for place in range(len(arms))]


def _repeat_kinds(arms: Sequence[str], kinds: Sequence[T]) -> list[T]:
    """Use one kind for each level of a group; without groups, the next kind when the colours begin again."""
    members = group_arms(arms, len(COLOURS))
    return [kinds[(members[name].rank + members[name].place // len(COLOURS)) % len(kinds)] for name in arms]


def _make_legend(shown: Sequence[str], symbol: str | None) -> alt.Legend:
    columns = max(1, min(len(shown), LEGEND_CHARACTERS // (max(map(len, shown), default=0) + 5)))
    return alt.Legend(
        values=list(shown),
        columns=columns,
        symbolType=alt.Undefined if symbol is None else symbol,
        symbolSize=DASHED if symbol == "stroke" else alt.Undefined,
        symbolOpacity=1,
    )


def make_large_axis(ticks: int = 8) -> alt.Axis:
    """Make an axis for large numbers: `0`, `500k`, `1M`."""
    return alt.Axis(tickCount=ticks, labelExpr="format(datum.value, '~s')")


def make_step_axis() -> alt.X:
    """Make a horizontal axis of training steps."""
    return alt.X(
        "step:Q", title="step", axis=alt.Axis(tickMinStep=1, tickCount=10, labelExpr="format(datum.value, '~s')")
    )


def draw_rule(name: str, *, x: float | None = None, y: float | None = None) -> alt.Chart:
    """Draw a dashed line at a value, in a chart of the table of this name."""
    where = {"x": alt.XDatum(x)} if x is not None else {"y": alt.YDatum(y)}
    mark = alt.MarkDef(type="rule", color="#888", strokeDash=[5, 4])
    return alt.Chart(name_table(name), mark=mark, encoding=alt.FacetedEncoding(**where)).transform_aggregate(
        rows="count()"
    )


def list_present(rows: polars.DataFrame, arms: Sequence[str]) -> list[str]:
    """List the arms that a table contains, in their order."""
    found = set(rows["arm"])
    return [arm for arm in arms if arm in found]


def make_tooltip(*fields: str) -> list[alt.Tooltip]:
    """Make the tooltip of quantities, each given as `loss` or `loss=held-out loss`."""
    shown = [alt.Tooltip("arm:N", title="arm")]
    for field in fields:
        name, _, title = field.partition("=")
        exact = name in ("seed", "step")
        shown.append(
            alt.Tooltip(f"{name}:Q", title=title or name, format="," if exact else ".4s" if is_large(name) else ".4g")
        )
    return shown


def is_large(name: str) -> bool:
    """Return whether a quantity should be written with k, M and G."""
    return name in ("passes", "tokens", "flops", "batch")
