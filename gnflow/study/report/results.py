"""The tables of a comparison: arms, what each needed, ratios with intervals, costs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.comparison import Comparison, Result
from gnflow.study.ratios import Estimate, Interval
from gnflow.study.report.charts.chart import colours
from gnflow.study.report.html import Markup, paragraph, table, tag, text
from gnflow.study.scores import WORDS, numbers
from gnflow.train.run import Run

UNITS: Mapping[str, Callable[[float], str]] = {"steps": lambda steps: f"{steps:,g}", "seconds": figures.duration}


def arms(comparison: Comparison) -> Iterator[Markup]:
    """What the arms are, then what each needed to each target."""
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
            ("arm", "seeds there", *WORDS.values()),
            [(dots[result.arm], text(_there(result)), *_needed(result)) for result in comparison.at(target)],
            words=2,
        )
    yield paragraph("Medians over the seeds; with a miss counted as more than any number.")


def ratios(comparison: Comparison) -> Iterator[Markup]:
    """A row for each arm and axis, at each target."""
    dots = swatches(comparison)
    for target in comparison.targets[::-1]:
        rows = [
            (
                dots[ratio.other], text(WORDS[axis]), text(_factor(estimate)), text(_interval(estimate.interval)),
                text(_interval(estimate.bootstrap)), text(_p(estimate.p_value)), text(_p(estimate.p_sign_flip)),
                text(len(ratio.seeds)),
            )
            for ratio in comparison.ratios
            if ratio.target == target
            for axis, estimate in ratio.axes.items()
        ]  # fmt: skip
        if rows:
            yield tag("h3", text(f"Times the cost of {comparison.reference}, to {target:g}"))
            yield table(
                ("arm", "cost", "factor", "95 % interval (t)", "95 % (bootstrap)", "p (t)", "p (sign flip)", "seeds"),
                rows,
                words=2,
            )
            yield paragraph(
                "Geometric means over paired seeds. The bootstrap never leaves the range of what was seen: with few "
                "seeds it is too narrow."
            )


def costs(comparison: Comparison) -> Iterator[Markup]:
    """What the arms were planned to cost, and have cost."""
    dots = swatches(comparison)
    columns = (
        "arm", "steps / planned", "tokens to solve", "to search", "FLOPs / planned", "time", "a step",
        "predicted time", "compile time", "FLOP/s", "memory, planned", "measured",
    )  # fmt: skip
    rates = {arm.name: _over(arm, _rate) for arm in comparison.arms}
    yield table(
        columns,
        [(dots[arm.name], *(text(cell) for cell in _cost(arm, comparison, rates))) for arm in comparison.arms],
        words=1,
    )
    yield paragraph(
        "Medians over the seeds, of the whole run and not only as far as the target. Time is without compilation. "
        "Predicted time: these FLOPs at the median rate of the other arms on this kind of device."
    )


def swatches(comparison: Comparison) -> dict[str, Markup]:
    """Arm -> its name beside its colour."""
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
    return f"{sign}{estimate.factor:.3g}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return figures.MISSING
    return " to ".join(f"{end:.3g}" if math.isfinite(end) else "∞" for end in interval)


def _p(value: float | None) -> str:
    return figures.MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _cost(arm: Arm, comparison: Comparison, rates: Mapping[str, float | None]) -> Iterator[str]:
    def last(column: str) -> float | None:
        return _over(arm, lambda run: _last(run, column))

    steps, seconds, flops = last("step"), last("time/seconds"), last("flops/total")
    device = arm.runs[0].plan.get("device")
    others = [
        rate
        for other in comparison.arms
        if other.name != arm.name and other.runs[0].plan.get("device") == device and (rate := rates[other.name])
    ]
    yield f"{_count(steps)} / {_count(_over(arm, lambda run: numbers(run.plan).get('steps')))}"
    yield figures.count(last("tokens/solve"))
    yield figures.count(last("tokens/search"))
    yield f"{figures.count(flops)} / {figures.count(_over(arm, lambda run: numbers(run.plan.get('run')).get('flops')))}"
    yield figures.duration(seconds)
    yield figures.MISSING if not steps or seconds is None else f"{seconds / steps:.3g} s"
    yield figures.MISSING if not flops or not others else figures.duration(flops / median(others))
    yield figures.duration(last("time/compile"))
    yield figures.count(rates[arm.name])
    yield _bytes(_over(arm, lambda run: sum(numbers(run.plan.get("memory")).values()) or None))
    yield _bytes(_over(arm, lambda run: _last(run, "memory/peak_bytes")))


def _count(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value:,g}"


def _bytes(value: float | None) -> str:
    return figures.MISSING if value is None else f"{value / 1e6:,.0f} MB"


def _rate(run: Run) -> float | None:
    seconds, flops = _last(run, "time/seconds"), _last(run, "flops/total")
    return flops / seconds if seconds and flops else None


def _last(run: Run, column: str) -> float | None:
    if column not in run.metrics.columns:
        return None
    values = run.metrics[column].drop_nulls()
    return float(values[-1]) if len(values) else None


def _over(arm: Arm, figure: Callable[[Run], float | None]) -> float | None:
    """Median over the runs that have it."""
    values = [value for run in arm.runs if (value := figure(run)) is not None]
    return median(values) if values else None


def columns_with_content(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Those in which a row has something."""
    return [index for index in range(len(columns)) if any(row[index] != figures.MISSING for row in rows)]
