"""Decide what may be claimed of a ratio. A difference is claimed only if its interval excludes 1."""

from math import inf, isclose
from typing import Literal

from gnflow.study import figures
from gnflow.study.intervals import Interval
from gnflow.study.ratios import Estimate

ALIKE = 1.05  # a smaller factor counts as no difference
Claim = Literal["fewer", "more", "alike", "undecided"]


def decide_claim(estimate: Estimate) -> Claim:
    """Decide whether the reference needs fewer or more. With one seed only the factor, or its bound, decides."""
    low, high = estimate.interval or _make_interval(estimate)
    if estimate.factor is None or 1 / ALIKE < estimate.factor < ALIKE:
        certain = low > 1 or high < 1 or (low > 1 / ALIKE and high < ALIKE)
        return "alike" if certain and estimate.bound == "exact" else "undecided"
    return "fewer" if low > 1 else "more" if high < 1 else "undecided"


def format_factor(estimate: Estimate) -> str:
    """Format the factor of a claim, such as `5.5x`: how many times fewer, or how many times more."""
    value = estimate.factor or 1.0
    return figures.format_factor(1 / value if decide_claim(estimate) == "more" else value)


def format_interval(estimate: Estimate) -> str:
    """Format an interval: `5.1 to 6.0` for a claim, `1.2x more to 1.9x fewer` otherwise. Needs two seeds."""
    low, high = estimate.interval or _make_interval(estimate)
    claimed = decide_claim(estimate)
    if claimed == "undecided":
        ends = [f"{figures.format_ratio(1 / low)}x more"] if low else []
        ends += [f"{figures.format_ratio(high)}x fewer"] if high < inf else []
        return " to ".join(ends) if len(ends) == 2 else f"at most {ends[0]}" if ends else "open on both sides"
    if isclose(low, high):
        return "the same with each seed"
    if claimed == "more":
        low, high = 1 / high, 1 / low if low else inf
    return figures.format_range(low, high) if high < inf else f"{figures.format_ratio(low)} or more"


def _make_interval(estimate: Estimate) -> Interval:
    """Make the interval of a single seed: a point, or a half-line after a miss."""
    value = estimate.factor or 1.0
    return Interval(
        value if estimate.bound in ("exact", "at least") else 0.0,
        value if estimate.bound in ("exact", "at most") else inf,
    )
