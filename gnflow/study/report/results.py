"""Make the tables of a comparison: arms, what each needed, ratios with intervals, and costs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.comparison import Comparison
from gnflow.study.intervals import Interval
from gnflow.study.load import measure_load
from gnflow.study.ratios import Estimate
from gnflow.study.report.charts.look import list_colours
from gnflow.study.report.html import Markup, escape, make_paragraph, make_table, make_tag
from gnflow.study.scores import WORDS, count_devices, select_numbers
from gnflow.train.run import Run

HEADINGS = [*(word for axis, word in WORDS.items() if axis != "seconds"), "time"]


def make_arm_tables(comparison: Comparison) -> Iterator[Markup]:
    """Make the tables of the arms, and of what each needed to reach each target."""
    dots = make_swatches(comparison)
    columns = ("arm", "optimizer", "learning rates", "trials", "seeds", "update RMS", "loss at start", "best loss")
    yield make_table(
        columns,
        [
            (
                dots[arm.name], escape(arm.kind), escape(_format_rates(arm.learning_rates)),
                escape(arm.trials or "none"), escape(len(arm.seeds)),
                escape(figures.MISSING if arm.update_rms is None else f"{arm.update_rms:.2g}"),
                escape(figures.format_loss(arm.start)), escape(figures.format_loss(arm.best)),
            )
            for arm in comparison.arms
        ],
        words=3,
    )  # fmt: skip
    yield make_paragraph(
        "Trials: configurations tried before the values were settled on. Losses: medians over the seeds."
    )


def make_ratio_tables(comparison: Comparison) -> Iterator[Markup]:
    """Make the table of all arms at all targets, then that of the headline in full."""
    if not comparison.ratios:
        return
    dots = make_swatches(comparison)
    yield make_tag("h3", escape(f"Times the cost of {comparison.reference}"))
    yield make_table(
        ("arm", "target", *HEADINGS, "seeds"),
        [
            (
                dots[ratio.other], escape(f"{ratio.target:g}"),
                *(_format_estimate(ratio.axes.get(axis)) for axis in WORDS), escape(len(ratio.seeds)),
            )
            for target in comparison.targets[::-1]
            for ratio in comparison.ratios
            if ratio.target == target
        ],
        words=2,
    )  # fmt: skip
    yield make_paragraph(
        "Geometric means over paired seeds, with 95 % intervals of Student's t where there are several."
    )
    headline = [ratio for ratio in comparison.ratios if ratio.target == comparison.headline]
    if any(estimate.interval for ratio in headline for estimate in ratio.axes.values()):
        yield make_tag("h3", escape(f"How sure that is, to {comparison.headline:g}"))
        yield make_table(
            ("arm", "cost", "factor", "95 % (t)", "95 % (bootstrap)", "p (t)", "p (sign flip)"),
            [
                (
                    dots[ratio.other], escape(WORDS[axis]), escape(_format_factor(estimate)),
                    *(escape(_format_interval(interval)) for interval in (estimate.interval, estimate.bootstrap)),
                    *(escape(format_p_value(p)) for p in (estimate.p_value, estimate.p_sign_flip)),
                )
                for ratio in headline
                for axis, estimate in ratio.axes.items()
            ],
            words=2,
        )  # fmt: skip
        yield make_paragraph("The bootstrap never leaves the range of what was seen: with few seeds it is too narrow.")


def make_cost_tables(comparison: Comparison) -> Iterator[Markup]:
    """Make the tables of planned and actual costs: work, then time and memory."""
    rates = {arm.name: _compute_median(arm, _compute_rate) for arm in comparison.arms}
    yield _make_figure_table(comparison, [dict(_list_work(arm)) for arm in comparison.arms])
    yield _make_figure_table(comparison, [dict(_list_times(arm, comparison, rates)) for arm in comparison.arms])
    yield make_paragraph(
        "Medians over the seeds, of the whole run and not only as far as the target. Time is without compilation. "
        "Predicted time: these FLOPs at the median rate of the other arms on this kind of device. Load by others: the "
        "part of the processors that other processes took during steps. Memory is as planned. Device time is the time "
        "of all devices together, and FLOP/s are those of one device."
    )


def make_swatches(comparison: Comparison) -> dict[str, Markup]:
    """Return the name of each arm beside its colour."""
    names = [arm.name for arm in comparison.arms]
    return {
        name: Markup(make_tag("span", class_="swatch", style=f"background:{colour}") + escape(name))
        for name, colour in zip(names, list_colours(names), strict=True)
    }


def _format_rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{rate:g} ({where})" if where else f"{rate:g}" for where, rate in rates.items())


def _format_factor(estimate: Estimate) -> str:
    if estimate.factor is None:
        return "unknown"
    sign = {"at least": "≥ ", "at most": "≤ "}.get(estimate.bound, "")
    return sign + format_digits(estimate.factor)


def _format_estimate(estimate: Estimate | None) -> Markup:
    if estimate is None:
        return escape(figures.MISSING)
    interval = f" ({_format_interval(estimate.interval)})" if estimate.interval else ""
    return Markup(escape(_format_factor(estimate)) + make_tag("small", escape(interval)))


def _format_interval(interval: Interval | None) -> str:
    if interval is None:
        return figures.MISSING
    return " to ".join(format_digits(end) for end in interval)


def format_digits(value: float) -> str:
    """Format a number with three digits: `0.114`, `3.30`, `12.0`, `131`."""
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else "∞"


def format_p_value(value: float | None) -> str:
    """Format a p-value with two digits."""
    return figures.MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _make_figure_table(comparison: Comparison, rows: Sequence[Mapping[str, str]]) -> Markup:
    """Make a row for each arm, without columns in which no arm has a figure."""
    dots = make_swatches(comparison)
    columns = [column for column in rows[0] if any(row[column] != figures.MISSING for row in rows)]
    cells = [
        (dots[arm.name], *(escape(row[column]) for column in columns))
        for arm, row in zip(comparison.arms, rows, strict=True)
    ]
    return make_table(("arm", *columns), cells, words=1)


def _list_work(arm: Arm) -> Iterator[tuple[str, str]]:
    yield "steps", _format_count(_find_last_median(arm, "step"))
    yield "planned", _format_count(_compute_median(arm, lambda run: select_numbers(run.plan).get("steps")))
    yield "tokens to solve", figures.format_count(_find_last_median(arm, "tokens/solve"))
    yield "to search", figures.format_count(_find_last_median(arm, "tokens/search"))
    yield "serial passes", figures.format_count(_find_last_median(arm, "passes/serial"))
    yield "FLOPs", figures.format_count(_find_last_median(arm, "flops/total"))
    yield (
        "planned FLOPs",
        figures.format_count(_compute_median(arm, lambda run: select_numbers(run.plan.get("run")).get("flops"))),
    )


def _list_times(arm: Arm, comparison: Comparison, rates: Mapping[str, float | None]) -> Iterator[tuple[str, str]]:
    steps, seconds, flops = (_find_last_median(arm, column) for column in ("step", "time/seconds", "flops/total"))
    device = arm.runs[0].plan.get("device")
    others = [
        rate
        for other in comparison.arms
        if other.name != arm.name and other.runs[0].plan.get("device") == device and (rate := rates[other.name])
    ]
    yield "time", figures.format_duration(seconds)
    devices = [count_devices(run) for other in comparison.arms for run in other.runs]
    if max(devices) > 1:
        count = _compute_median(arm, count_devices)
        yield "devices", figures.MISSING if count is None else f"{count:.3g}"
        yield "device time", figures.format_duration(_compute_median(arm, _measure_device_seconds))
    yield "predicted", figures.format_duration(flops / median(others) if flops and others else None)
    yield "a step", figures.MISSING if not steps or seconds is None else f"{seconds / steps:.3g} s"
    yield "compilation", figures.format_duration(_find_last_median(arm, "time/compile"))
    yield "FLOP/s", figures.format_count(rates[arm.name])
    yield "load by others", _format_percent(_compute_median(arm, measure_load))
    yield (
        "memory",
        _format_bytes(_compute_median(arm, lambda run: sum(select_numbers(run.plan.get("memory")).values()) or None)),
    )


def _format_count(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:,g}"


def _format_percent(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:.0%}"


def _format_bytes(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value / 1e6:,.0f} MB"


def _compute_rate(run: Run) -> float | None:
    seconds, flops = _measure_device_seconds(run), _find_last(run, "flops/total")
    return flops / seconds if seconds and flops else None


def _measure_device_seconds(run: Run) -> float | None:
    seconds = _find_last(run, "time/seconds")
    return seconds if seconds is None else seconds * count_devices(run)


def _find_last_median(arm: Arm, column: str) -> float | None:
    return _compute_median(arm, lambda run: _find_last(run, column))


def _find_last(run: Run, column: str) -> float | None:
    if column not in run.metrics.columns:
        return None
    values = run.metrics[column].drop_nulls()
    return float(values[-1]) if len(values) else None


def _compute_median(arm: Arm, figure: Callable[[Run], float | None]) -> float | None:
    """Return the median over the runs that have a value."""
    values = [value for run in arm.runs if (value := figure(run)) is not None]
    return median(values) if values else None
