"""A chart of a report: views for the screen, and a still picture for paper."""

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
    """A chart that is interactive on the screen and a still picture on paper."""

    name: str
    """The name of its files and of its place on the page, which never changes."""
    title: str
    note: str
    """A note on how to read the chart, and on the values that it leaves out."""
    tables: dict[str, polars.DataFrame]
    """The tables that the specifications draw, by name."""
    views: dict[str, Spec]
    """The specification for each combination of options (joined by a space); the first is shown at the beginning."""
    still: Spec
    choices: tuple[Choice, ...] = ()


def make_spec(drawing: Drawing) -> Spec:
    """Return the specification of a drawing with the shared look, on the background of the page."""
    return {**drawing.to_dict(), "config": THEME | {"background": "transparent"}}


def make_still(drawing: Drawing) -> Spec:
    """Return the specification on a white background, for a picture."""
    return {**drawing.to_dict(), "config": THEME | {"background": "white", "aria": False}}


def make_both(drawing: alt.LayerChart) -> tuple[dict[str, Spec], Spec]:
    """Return a view as wide as the page, and one of fixed width."""
    return {"": make_spec(set_size(drawing))}, make_still(set_size(drawing, WIDTH))


def set_size(drawing: alt.LayerChart, width: int | None = None, height: int = HEIGHT) -> alt.LayerChart:
    """Set the size in pixels; without a width, the view is as wide as the page."""
    return drawing.properties(width="container" if width is None else width, height=height)
