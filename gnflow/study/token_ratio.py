"""Estimate the tokens that the reference would need for the final loss of another arm, over the budget of both.

The tokens are read from the reference's own curve. This is possible only if its schedule does not look ahead: then a
loss on the way is the loss of a shorter run. If the loss is lower than all of the curve, the tokens come from a scaling
law that is fitted to the last decade of the curves, and that is used for at most one decade beyond them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from statistics import fmean
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.spec.origins import walk_values
from gnflow.study.arms import Arm
from gnflow.study.intervals import Interval, compute_t_interval
from gnflow.study.scaling_law import DECADE, Law, Point, fit
from gnflow.study.scores import METRIC, read_costs
from gnflow.train.run import Run

Curve = Sequence[tuple[float, float]]  # (tokens, held-out loss), from the first evaluation that has cost something
BySeed = Mapping[int, float]


class TokenRatio(NamedTuple):
    """Tokens that the reference needs for the other arm's loss, over the budget: above 1 if the other arm is better."""

    factor: float | None
    """Geometric mean over paired seeds; None if it is unknown."""
    interval: Interval | None
    """95 % interval of Student's t on the log ratios, without the error of the law; None with one seed."""
    why_not: str | None
    """Why the ratio is unknown."""
    extrapolated: bool = False
    """Whether the loss of some seed lies beyond the curve of the reference, where the tokens come from a law."""


def estimate_token_ratios(reference: Arm, others: Mapping[str, BySeed], budget: float) -> dict[str, TokenRatio]:
    """Return the ratio of each other arm, whose final losses are given by seed."""
    if any(getattr(value, "looks_ahead", False) for _, value in walk_values(reference.runs[0].experiment.optimizer)):
        why = (
            f"the schedule of {reference.name} depends on the length of its run, so its loss on the way is not that of "
            "a shorter run; runs at several budgets are needed"
        )
        return {name: _make_unknown(why) for name in others}
    curves = {run.experiment.training.seed: _trace_curve(run) for run in reference.runs}
    law = _fit_end(reference.name, list(curves.values()))
    return {name: _estimate_ratio(reference.name, curves, law, losses, budget) for name, losses in others.items()}


def _estimate_ratio(
    reference: str, curves: Mapping[int, Curve], law: Law | SpecError, losses: BySeed, budget: float
) -> TokenRatio:
    logs, extrapolated = [], False
    for seed in sorted(curves.keys() & losses.keys()):
        if curves[seed][0][1] <= losses[seed]:
            return _make_unknown(f"{reference} has a lower loss at its first evaluation already")
        needed = _find_crossing(curves[seed], losses[seed])
        if needed is None:
            if isinstance(law, SpecError):
                return _make_unknown(str(law))
            needed, extrapolated = law.find_size(losses[seed]), True
        if needed is None:
            return _make_unknown(
                f"{reference} would need more than {DECADE:g} times the tokens of its runs, or never reach that loss"
            )
        logs.append(log(needed / budget))
    if not logs:
        return _make_unknown("there is no seed in common")
    interval = compute_t_interval(logs, logs) if len(logs) > 1 else None
    ends = None if interval is None else Interval(exp(interval.low), exp(interval.high))
    return TokenRatio(exp(fmean(logs)), ends, None, extrapolated)


def _make_unknown(why: str) -> TokenRatio:
    return TokenRatio(None, None, why)


def _trace_curve(run: Run) -> Curve:
    rows = [row for row in run.metrics.to_dicts() if row.get(METRIC) is not None and row["step"]]
    return [(read_costs(run, row)["tokens"], row[METRIC]) for row in rows]


def _find_crossing(curve: Curve, loss: float) -> float | None:
    """Return the tokens at which a curve first falls to a loss, between evaluations on a line in log tokens."""
    for (tokens, value), (later, lower) in pairwise(curve):
        if value > loss >= lower:
            part = (value - loss) / (value - lower)
            return exp(log(tokens) + part * (log(later) - log(tokens)))
    return None


def _fit_end(name: str, curves: Sequence[Curve]) -> Law | SpecError:
    """Fit a law to the last decade of all curves; return the reason if there is none."""
    end = max(curve[-1][0] for curve in curves)
    try:
        return fit([Point(name, *one) for curve in curves for one in curve if one[0] >= end / DECADE], name)
    except SpecError as error:
        return error
