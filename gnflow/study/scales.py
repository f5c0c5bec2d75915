"""Compare methods over several scales: a scaling law of their final losses, and how a difference changes with size."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, log, log10
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np

from gnflow.errors import SpecError
from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.comparison import Comparison
from gnflow.study.intervals import Interval, compute_t_interval
from gnflow.study.scaling_law import Law, Point, fit
from gnflow.study.scores import select_numbers
from gnflow.study.token_ratio import BySeed

Measure = Literal["parameters", "tokens", "flops"]
MEASURES: tuple[Measure, ...] = ("parameters", "tokens", "flops")
WORDS: Mapping[Measure, str] = {"parameters": "parameters", "tokens": "tokens", "flops": "FLOPs"}


class Trend(NamedTuple):
    """The change with size of the difference of a method from the reference."""

    method: str
    values: dict[str, dict[int, float]]
    """The difference by scale and seed: the loss minus that of the reference in nats or, if methods are compared at a
    target, the log of the ratio of steps."""
    slope: float | None
    """Change of the difference for ten times the size: the mean over the seeds that all scales have; None if they have
    no seed in common."""
    interval: Interval | None
    """95 % interval of Student's t; None with one seed."""


class Scaled(NamedTuple):
    """Methods at several scales."""

    measure: Measure
    """The quantity that is the size of a scale. By default it is the first of MEASURES that differs between scales."""
    sizes: dict[str, float]
    """Size of each scale: the median over its runs."""
    reference: str
    points: tuple[Point, ...]
    """The loss of every run at the end of its schedule; empty if methods are compared at targets."""
    law: Law | None
    why_not: str | None
    """Why there is no law."""
    trends: tuple[Trend, ...]
    nats: bool
    """Whether differences are in nats, and not logs of ratios of steps."""


def compare_scales(
    comparisons: Mapping[str, Comparison], methods: Mapping[str, str], reference: str, measure: Measure | None = None
) -> Scaled:
    """Fit the law and the trends over the comparisons by scale; `methods` names the method of each arm.

    Raises SpecError if the scales do not differ in the measure of size.
    """
    arms = [(scale, arm) for scale, comparison in comparisons.items() for arm in comparison.arms]
    chosen = measure or next((each for each in MEASURES if _is_different(each, arms)), None)
    if chosen is None or not _is_different(chosen, arms):
        raise SpecError(
            f"the scales do not differ in {chosen or 'parameters, tokens or FLOPs'}: there is no size to fit over"
        )
    sizes = {
        scale: float(np.median([_measure_size(chosen, arm) for at, arm in arms if at == scale]))
        for scale in comparisons
    }
    nats = all(comparison.ended for comparison in comparisons.values())
    points = tuple(_list_points(chosen, comparisons, methods)) if nats else ()
    law, why_not = None, "methods are compared at targets, which have no loss to fit" if not nats else None
    if nats:
        try:
            law = fit(points, reference)
        except SpecError as error:
            why_not = str(error)
    values = {scale: dict(_list_values(comparison, methods)) for scale, comparison in comparisons.items()}
    others = [name for name in dict.fromkeys(methods.values()) if name != reference]
    trends = tuple(
        _fit_trend(name, {scale: found.get(name, {}) for scale, found in values.items()}, sizes) for name in others
    )
    return Scaled(chosen, sizes, reference, points, law, why_not, trends, nats)


def describe_scales(scaled: Scaled) -> Iterator[str]:
    """Write a sentence for each result of the law and of the trends."""
    word, law = WORDS[scaled.measure], scaled.law
    ends = " to ".join(figures.format_count(end) for end in (min(scaled.sizes.values()), max(scaled.sizes.values())))
    if law is None:
        yield f"No scaling law is fitted: {scaled.why_not}."
    for name, factor in law.factors.items() if law else ():
        if name != scaled.reference:
            found = law.intervals[name] if law else None
            sure = (
                "no interval, as many parameters as points"
                if found is None
                else f"95 % CI {figures.format_range(*found)}"
            )
            undecided = found is None or found.low <= 1 <= found.high
            mark = "; not decided whether more or fewer" if undecided else ""
            yield (
                f"{name} has the loss that {scaled.reference} has with {figures.format_ratio(factor)} times the {word} "
                f"({sure}, over {ends}{mark})."
            )
    for trend in scaled.trends:
        if trend.slope is not None:
            yield _describe_trend(trend, scaled)


def _describe_trend(trend: Trend, scaled: Scaled) -> str:
    unit = "nats" if scaled.nats else "in the log of the ratio of steps"
    what = "difference in loss" if scaled.nats else "ratio of steps"
    low, high = trend.interval or (trend.slope or 0.0, trend.slope or 0.0)
    sure = f"95 % CI {low:+.3f} to {high:+.3f}" if trend.interval else "1 seed"
    claim = "grows" if low > 0 else "falls" if high < 0 else "does not certainly change"
    return (
        f"The {what} of {trend.method} from {scaled.reference} {claim} with size: {trend.slope:+.3f} {unit} for ten "
        f"times the {WORDS[scaled.measure]} ({sure})."
    )


def _measure_size(measure: Measure, arm: Arm) -> float:
    run = arm.runs[0]
    if measure == "parameters":
        return select_numbers(run.plan).get("parameters", 0.0)
    column = {"tokens": "tokens/total", "flops": "flops/total"}[measure]
    if column not in run.metrics.columns:
        return 0.0
    values = run.metrics[column].drop_nulls()
    return float(values[-1]) if len(values) else 0.0


def _is_different(measure: Measure, arms: Sequence[tuple[str, Arm]]) -> bool:
    sizes = {scale: _measure_size(measure, arm) for scale, arm in arms}
    low, high = min(sizes.values()), max(sizes.values())
    return low > 0 and high / low > 1.1


def _list_points(
    measure: Measure, comparisons: Mapping[str, Comparison], methods: Mapping[str, str]
) -> Iterator[Point]:
    for comparison in comparisons.values():
        sizes = {arm.name: _measure_size(measure, arm) for arm in comparison.arms}
        for budget in comparison.budgets:
            for reached in budget.arms:
                for loss in reached.losses.values():
                    yield Point(methods[reached.arm], sizes[reached.arm], loss)


def _list_values(comparison: Comparison, methods: Mapping[str, str]) -> Iterator[tuple[str, dict[int, float]]]:
    """Return, for each other method, its value by seed at one scale."""
    for budget in comparison.budgets if comparison.ended else ():
        losses = {reached.arm: reached.losses for reached in budget.arms}
        mine = losses.get(str(comparison.reference), {})
        for name, theirs in losses.items():
            if name != comparison.reference:
                yield methods[name], {seed: theirs[seed] - mine[seed] for seed in mine.keys() & theirs.keys()}
    if comparison.headline is None:
        return
    results = {result.arm: result for result in comparison.select_results(comparison.headline)}
    needed = {
        name: {score.seed: steps for score, steps in zip(result.scores, result.needed["steps"], strict=True)}
        for name, result in results.items()
    }
    mine = needed.get(str(comparison.reference), {})
    for name, theirs in needed.items():
        if name != comparison.reference:
            both = [seed for seed in mine.keys() & theirs.keys() if isfinite(mine[seed]) and isfinite(theirs[seed])]
            yield methods[name], {seed: log(theirs[seed] / mine[seed]) for seed in both}


def _fit_trend(method: str, values: Mapping[str, BySeed], sizes: Mapping[str, float]) -> Trend:
    known = {scale: dict(sorted(found.items())) for scale, found in values.items() if found}
    seeds = sorted(set.intersection(*(set(found) for found in known.values()))) if len(known) > 1 else []
    places = [log10(sizes[scale]) for scale in known]
    slopes = [float(np.polyfit(places, [known[scale][seed] for scale in known], 1)[0]) for seed in seeds]
    interval = compute_t_interval(slopes, slopes) if len(slopes) > 1 else None
    return Trend(method, known, fmean(slopes) if slopes else None, interval)
