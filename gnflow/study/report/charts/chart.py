"""What a chart of a report is, and the look that all of them share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import altair as alt
import polars

# Okabe and Ito's colours that can be told apart on white and on black, by readers with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])  # tell arms of one colour apart
FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
WIDTH, HEIGHT = 720, 340  # pixels of the drawing area in a still
LEGEND_CHARACTERS = 95  # that fit on one line of a legend
THEME = {
    "font": FONT,
    "background": "white",
    "padding": 6,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal", "titlePadding": 8, "labelOverlap": True,
        "gridColor": "#e4e4e4", "domainColor": "#888", "tickColor": "#888", "labelColor": "#222", "titleColor": "#222",
    },
    "legend": {
        "orient": "top", "title": None, "labelFontSize": 12, "labelLimit": 320, "symbolStrokeWidth": 3,
        "labelColor": "#222", "columnPadding": 18,
    },
    "title": {"fontSize": 13, "fontWeight": "normal", "color": "#222", "anchor": "start"},
    "header": {"labelFontSize": 12, "title": None},
}  # fmt: skip

Spec = Mapping[str, object]  # a Vega-Lite specification that names its tables and holds none
Drawing = alt.Chart | alt.LayerChart | alt.VConcatChart | alt.ConcatChart


class Choice(NamedTuple):
    """A row of buttons over a chart."""

    name: str
    options: tuple[str, ...]


class Chart(NamedTuple):
    """A chart, interactive on the screen and still on paper."""

    name: str
    """Of its files and its place on the page; stable."""
    title: str
    note: str
    """How to read it, and what is not in it."""
    tables: dict[str, polars.DataFrame]
    """Table name -> what the specs draw under that name."""
    views: dict[str, Spec]
    """The options chosen, joined by a blank -> what is drawn then; the first is drawn at first."""
    still: Spec
    choices: tuple[Choice, ...] = ()


def spec(drawing: Drawing) -> Spec:
    """The specification of a drawing, with the shared look."""
    return {**drawing.to_dict(), "config": THEME}


def both(drawing: alt.LayerChart) -> tuple[dict[str, Spec], Spec]:
    """A view as wide as the page, and the same in a fixed width."""
    return {"": spec(sized(drawing))}, spec(sized(drawing, WIDTH))


def sized(drawing: alt.LayerChart, width: int | None = None, height: int = HEIGHT) -> alt.LayerChart:
    """In pixels; without a width as wide as the page."""
    return drawing.properties(width="container" if width is None else width, height=height)


def table(name: str) -> alt.NamedData:
    """A table of the chart, by its name."""
    return alt.NamedData(name)


def picked() -> alt.Parameter:
    """The arm that was clicked on in the legend. Its name is given, since Altair's own depend on what ran before."""
    return alt.selection_point(name="picked", fields=["arm"], bind="legend", toggle="true")


def faded(pick: alt.Parameter, opacity: float) -> alt.Opacity:
    """`opacity`, and next to nothing while another arm is picked."""
    return alt.Opacity(condition={"param": pick.name, "value": opacity}, value=0.06)


def colour(arms: Sequence[str], shown: Sequence[str] | None = None) -> alt.Color:
    """One colour for each arm, the same in every chart; the legend names those that are `shown` in this one."""
    named = list(arms if shown is None else shown)
    columns = max(1, min(len(named), LEGEND_CHARACTERS // (max(map(len, named), default=0) + 5)))
    return alt.Color(
        "arm:N",
        scale=alt.Scale(domain=list(arms), range=colours(arms)),
        legend=alt.Legend(values=named, columns=columns, symbolType="stroke", symbolOpacity=1, symbolDash=[1, 0]),
    )


def colours(arms: Sequence[str]) -> list[str]:
    """Of each arm; from the eighth on they come again."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(arms))]


def dash(arms: Sequence[str]) -> alt.StrokeDash:
    """Solid for as many arms as there are colours, then dashed."""
    dashes = [DASHES[index // len(COLOURS) % len(DASHES)] for index in range(len(arms))]
    return alt.StrokeDash("arm:N", scale=alt.Scale(domain=list(arms), range=dashes), legend=None)


def present(rows: polars.DataFrame, arms: Sequence[str]) -> list[str]:
    """The arms that a table is about, in their order."""
    found = set(rows["arm"])
    return [arm for arm in arms if arm in found]


def tooltip(*fields: str) -> list[alt.Tooltip]:
    """Of quantities: `loss` or `loss=held-out loss`."""
    shown = [alt.Tooltip("arm:N", title="arm")]
    for field in fields:
        name, _, title = field.partition("=")
        exact = name in ("seed", "step")
        shown.append(alt.Tooltip(f"{name}:Q", title=title or name, format="," if exact else ".4s" if big(name) else ".4g"))
    return shown


def big(name: str) -> bool:
    """Whether a quantity is better written with k, M and G."""
    return name in ("passes", "tokens", "flops", "batch")
