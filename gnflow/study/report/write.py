"""Write the page and its pictures; the page is written last, complete or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gnflow.study.comparison import Comparison
from gnflow.study.report import assets, data
from gnflow.study.report.charts.chart import Chart, Spec
from gnflow.study.report.charts.every import NAMES, make_charts
from gnflow.study.report.page import make_page
from gnflow.train import disk


class ReportFiles(NamedTuple):
    """The files that were written."""

    page: Path
    pictures: Path
    charts: tuple[str, ...]
    """Names of the charts, each of which has a PNG and an SVG file."""


def write(comparison: Comparison, output: Path, title: str | None = None) -> ReportFiles:
    """Write the page and the pictures. Raises DiskProblem."""
    charts = make_charts(comparison)
    whole = {chart.name: _include_tables(chart) for chart in charts}
    stills = {name: assets.draw_svg(spec) for name, spec in whole.items()}
    pictures = output.with_name(f"{output.stem}_charts")
    for name, spec in whole.items():
        disk.write(pictures / f"{name}.svg", stills[name].encode())
        disk.write(pictures / f"{name}.png", assets.draw_png(spec))
    _remove_pictures(pictures, [name for name in NAMES if name not in whole])
    disk.write(output, make_page(comparison, charts, stills, title).encode())
    return ReportFiles(output, pictures, tuple(whole))


def _include_tables(chart: Chart) -> Spec:
    """Return the specification of the still picture with its tables included."""
    return {**chart.still, "datasets": {name: data.make_records(rows) for name, rows in chart.tables.items()}}


def _remove_pictures(pictures: Path, names: Iterable[str]) -> None:
    """Remove pictures of an earlier report that this one does not have."""
    with disk.guard_write(pictures):
        for name in names:
            for suffix in ("svg", "png"):
                (pictures / f"{name}.{suffix}").unlink(missing_ok=True)
