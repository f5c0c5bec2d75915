"""What a chart of a report is: views for the screen, a still for paper."""

from collections.abc import Mapping
from typing import NamedTuple

import altair as alt
import polars

from gnflow.study.report.charts.look import THEME

WIDTH, HEIGHT = 720, 340  # pixels of the drawing area in a still

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
    """The specification of a drawing, with the shared look, on the page's own ground."""
    return {**drawing.to_dict(), "config": THEME | {"background": "transparent"}}


def still(drawing: Drawing) -> Spec:
    """The same on white, for a picture."""
    return {**drawing.to_dict(), "config": THEME | {"background": "white", "aria": False}}


def both(drawing: alt.LayerChart) -> tuple[dict[str, Spec], Spec]:
    """A view as wide as the page, and the same in a fixed width."""
    return {"": spec(sized(drawing))}, still(sized(drawing, WIDTH))


def sized(drawing: alt.LayerChart, width: int | None = None, height: int = HEIGHT) -> alt.LayerChart:
    """In pixels; without a width as wide as the page."""
    return drawing.properties(width="container" if width is None else width, height=height)
