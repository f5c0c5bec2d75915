"""Make all charts that have data, in the order of the page."""

from collections.abc import Callable, Iterator

from gnflow.study.comparison import Comparison
from gnflow.study.report.charts.chart import Chart
from gnflow.study.report.charts.differences import draw_differences
from gnflow.study.report.charts.efficiencies import draw_efficiencies
from gnflow.study.report.charts.gauss_newton import draw_gauss_newton
from gnflow.study.report.charts.losses import draw_losses
from gnflow.study.report.charts.probes import draw_probes
from gnflow.study.report.charts.profiles import draw_profiles
from gnflow.study.report.charts.ratios import draw_ratios
from gnflow.study.report.charts.scaling import draw_batch_sizes
from gnflow.study.report.charts.schedules import draw_schedules

FAMILIES: tuple[Callable[[Comparison], Iterator[Chart]], ...] = (
    draw_ratios, draw_differences, draw_losses, draw_schedules, draw_batch_sizes, draw_profiles, draw_gauss_newton,
    draw_probes, draw_efficiencies,
)  # fmt: skip
NAMES = (
    "ratios", "differences", "losses", "schedules", "batch_size", "profiles",
    "step_lengths", "gain_ratios", "decreases", "dominance", "curvature", "conflict", "modalities",
    "efficiencies", "efficiencies_steps", "efficiencies_kinds",
)  # fmt: skip


def make_charts(comparison: Comparison) -> tuple[Chart, ...]:
    """Make all charts except those that would be empty."""
    return tuple(chart for family in FAMILIES for chart in family(comparison))
