"""Make all charts that have data, in the order of the page."""

from collections.abc import Callable, Iterator

from gnflow.study.comparison import Comparison
from gnflow.study.report.charts.chart import Chart
from gnflow.study.report.charts.gauss_newton import gauss_newton
from gnflow.study.report.charts.losses import losses
from gnflow.study.report.charts.probes import probes
from gnflow.study.report.charts.profiles import profiles
from gnflow.study.report.charts.ratios import ratios
from gnflow.study.report.charts.scaling import batch_size

FAMILIES: tuple[Callable[[Comparison], Iterator[Chart]], ...] = (
    ratios, losses, batch_size, profiles, gauss_newton, probes,
)  # fmt: skip
NAMES = (
    "ratios", "losses", "batch_size", "profiles",
    "step_lengths", "gain_ratios", "decreases", "dominance", "curvature", "conflict", "modalities",
)  # fmt: skip


def every(comparison: Comparison) -> tuple[Chart, ...]:
    """Make all charts except those that would be empty."""
    return tuple(chart for family in FAMILIES for chart in family(comparison))
