"""Make the tables of a comparison: arms, what each needed, ratios with intervals, and costs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.comparison import Comparison
from gnflow.study.intervals import Interval
from gnflow.study.load import load
from gnflow.study.ratios import Estimate
from gnflow.study.report.charts.look import colours
from gnflow.study.report.html import Markup, paragraph, table, tag, text
from gnflow.study.results import Result
from gnflow.study.scores import WORDS, numbers
from gnflow.train.run import Run

HEADINGS = [*(word for axis, word in WORDS.items() if axis != "seconds"), "time"]
UNITS: Mapping[str, Callable[[float], str]] = {"steps": lambda steps: f"{steps:,g}", "seconds": figures.duration}


def arms(comparison: Comparison) -> Iterator[Markup]:
    """Make the tables of the arms, and of what each needed to reach each target."""
    dots = swatches(comparison)
    columns = ("arm", "optimizer", "learning rates", "trials", "seeds", "update RMS", "loss at start", "best loss")
    yield table(
        columns,
        [
            (
                dots[arm.name], text(arm.kind), text(_rates(arm.learning_rates)), text(arm.trials or "none"),
                text(len(arm.seeds)), text(figures.MISSING if arm.update_rms is None else f"{arm.update_rms:.2g}"),
                text(figures.loss(arm.start)), text(figures.loss(arm.best)),
            )
            for arm in comparison.arms
        ],
        words=3,
    )  # fmt: skip
    yield paragraph("Trials: configurations tried before the values were settled on. Losses: medians over the seeds.")
    for target in comparison.targets[::-1]:
        yield tag("h3", text(f"To a held-out loss of {target:g}"))
        yield table(
            ("arm", "seeds there", *HEADINGS),
            [(dots[result.arm], text(_there(result)), *_needed(result)) for result in comparison.at(target)],
            words=2,
        )
    if comparison.targets:
        yield paragraph("Medians over the seeds; with a miss counted as more than any number.")


def ratios(comparison: Comparison) -> Iterator[Markup]:
    """Make the table of all arms at all targets, then that of the headline in full."""
    if not comparison.ratios:
        return
    dots = swatches(comparison)
    yield tag("h3", text(f"Times the cost of {comparison.reference}"))
    yield table(
        ("arm", "target", *HEADINGS, "seeds"),
        [
            (
                dots[ratio.other], text(f"{ratio.target:g}"),
                *(_short(ratio.axes.get(axis)) for axis in WORDS), text(len(ratio.seeds)),
            )
            for target in comparison.targets[::-1]
            for ratio in comparison.ratios
            if ratio.target == target
        ],
        words=2,
    )  # fmt: skip
    yield paragraph("Geometric means over paired seeds, with 95 % intervals of Student's t where there are several.")
    headline = [ratio for ratio in comparison.ratios if ratio.target == comparison.headline]
    if any(estimate.interval for ratio in headline for estimate in ratio.axes.values()):
        yield tag("h3", text(f"How sure that is, to {comparison.headline:g}"))
        yield table(
            ("arm", "cost", "factor", "95 % (t)", "95 % (bootstrap)", "p (t)", "p (sign flip)"),
            [
                (
                    dots[ratio.other], text(WORDS[axis]), text(_factor(estimate)), text(_interval(estimate.interval)),
                    text(_interval(estimate.bootstrap)), text(p(estimate.p_value)), text(p(estimate.p_sign_flip)),
                )
                for ratio in headline
                for axis, estimate in ratio.axes.items()
            ],
            words=2,
        )  # fmt: skip
        yield paragraph("The bootstrap never leaves the range of what was seen: with few seeds it is too narrow.")


def costs(comparison: Comparison) -> Iterator[Markup]:
    """Make the tables of planned and actual costs: work, then time and memory."""
    rates = {arm.name: _over(arm, _rate) for arm in comparison.arms}
    yield _figures(comparison, [dict(_work(arm)) for arm in comparison.arms])
    yield _figures(comparison, [dict(_time(arm, comparison, rates)) for arm in comparison.arms])
    yield paragraph(
        "Medians over the seeds, of the whole run and not only as far as the target. Time is without compilation. "
        "Predicted time: these FLOPs at the median rate of the other arms on this kind of device. Load by others: the "
        "part of the processors that other processes took during steps. Memory is as planned."
    )


def swatches(comparison: Comparison) -> dict[str, Markup]:
    """Return the name of each arm beside its colour."""
    names = [arm.name for arm in comparison.arms]
    return {
        name: Markup(tag("span", class_="swatch", style=f"background:{colour}") + text(name))
        for name, colour in zip(names, colours(names), strict=True)
    }


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{rate:g} ({where})" if where else f"{rate:g}" for where, rate in rates.items())


def _there(result: Result) -> str:
    return f"{result.reached} of {len(result.scores)}"


def _needed(result: Result) -> Iterator[Markup]:
    for axis in WORDS:
        value = result.median.get(axis, math.inf)
        unit = UNITS.get(axis, figures.count)
        yield text("missed" if not result.reached else unit(value) if math.isfinite(value) else "∞")


def _factor(estimate: Estimate) -> str:
    if estimate.factor is None:
        return "unknown"
    sign = {"at least": "≥ ", "at most": "≤ "}.get(estimate.bound, "")
    return sign + digits(estimate.factor)


def _short(estimate: Estimate | None) -> Markup:
    if estimate is None:
        return text(figures.MISSING)
    interval = f" ({_interval(estimate.interval)})" if estimate.interval else ""
    return Markup(text(_factor(estimate)) + tag("small", text(interval)))


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return figures.MISSING
    return " to ".join(digits(end) for end in interval)


def digits(value: float) -> str:
    """Format a number with three digits: `0.114`, `3.30`, `12.0`, `131`."""
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else "∞"


def p(value: float | None) -> str:
    """Format a p-value with two digits."""
    return figures.MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _figures(comparison: Comparison, rows: Sequence[Mapping[str, str]]) -> Markup:
    """Make a row for each arm, without columns in which no arm has a figure."""
    dots = swatches(comparison)
    columns = [column for column in rows[0] if any(row[column] != figures.MISSING for row in rows)]
    cells = [
        (dots[arm.name], *(text(row[column]) for column in columns))
        for arm, row in zip(comparison.arms, rows, strict=True)
    ]
    return table(("arm", *columns), cells, words=1)


def _work(arm: Arm) -> Iterator[tuple[str, str]]:
    yield "steps", _count(_last_of(arm, "step"))
    yield "planned", _count(_over(arm, lambda run: numbers(run.plan).get("steps")))
    yield "tokens to solve", figures.count(_last_of(arm, "tokens/solve"))
    yield "to search", figures.count(_last_of(arm, "tokens/search"))
    yield "serial passes", figures.count(_last_of(arm, "passes/serial"))
    yield "FLOPs", figures.count(_last_of(arm, "flops/total"))
    yield "planned FLOPs", figures.count(_over(arm, lambda run: numbers(run.plan.get("run")).get("flops")))


def _time(arm: Arm, comparison: Comparison, rates: Mapping[str, float | None]) -> Iterator[tuple[str, str]]:
    steps, seconds, flops = (_last_of(arm, column) for column in ("step", "time/seconds", "flops/total"))
    device = arm.runs[0].plan.get("device")
    others = [
        rate
        for other in comparison.arms
        if other.name != arm.name and other.runs[0].plan.get("device") == device and (rate := rates[other.name])
    ]
    yield "time", figures.duration(seconds)
    yield "predicted", figures.duration(flops / median(others) if flops and others else None)
    yield "a step", figures.MISSING if not steps or seconds is None else f"{seconds / steps:.3g} s"
    yield "compilation", figures.duration(_last_of(arm, "time/compile"))
    yield "FLOP/s", figures.count(rates[arm.name])
    yield "load by others", _percent(_over(arm, load))
    yield "memory", _bytes(_over(arm, lambda run: sum(numbers(run.plan.get("memory")).values()) or None))


def _count(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:,g}"


def _percent(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:.0%}"


def _bytes(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value / 1e6:,.0f} MB"


def _rate(run: Run) -> float | None:
    seconds, flops = _last(run, "time/seconds"), _last(run, "flops/total")
    return flops / seconds if seconds and flops else None


def _last_of(arm: Arm, column: str) -> float | None:
    return _over(arm, lambda run: _last(run, column))


def _last(run: Run, column: str) -> float | None:
    if column not in run.metrics.columns:
        return None
    values = run.metrics[column].drop_nulls()
    return float(values[-1]) if len(values) else None


def _over(arm: Arm, figure: Callable[[Run], float | None]) -> float | None:
    """Return the median over the runs that have a value."""
    values = [value for run in arm.runs if (value := figure(run)) is not None]
    return median(values) if values else None
