"""How many tokens the reference would need for the final loss of another arm, over the budget that both had.

This is read from the reference's own curve, which is only possible if its schedule does not look ahead: then a loss
on the way is the loss of a shorter run. A loss lower than any of the curve is read from a scaling law that is fitted
to the last decade of the curves, and not more than a decade beyond them.
"""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.spec.origins import walk_values
from gnflow.study.arms import Arm
from gnflow.study.intervals import Interval, compute_t_interval
from gnflow.study.scaling_law import DECADE, Law, Point, fit
from gnflow.study.scores import METRIC, read_costs
from gnflow.train.run import Run

Curve = Sequence[tuple[float, float]]  # (tokens, held-out loss), from the first evaluation that has cost something


class TokenRatio(NamedTuple):
    """Tokens that the reference needs for the other arm's loss, over the budget: above 1 if the other arm is better."""

    factor: float | None
    """Geometric mean over paired seeds; None if it cannot be told."""
    interval: Interval | None
    """95 % interval of Student's t on the log ratios; None with one seed."""
    why_not: str | None
    """Why it cannot be told."""


def estimate_token_ratio(reference: Arm, losses: Mapping[int, float], budget: float) -> TokenRatio:
    """Return the ratio for another arm whose final losses by seed are given."""
    for _, value in walk_values(reference.runs[0].experiment.optimizer):
        if getattr(value, "looks_ahead", False):
            return _make_unknown(
                f"the schedule of {reference.name} depends on the length of its run, so its loss on the way is not "
                "that of a shorter run; runs at several budgets tell"
            )
    curves = {run.experiment.training.seed: _trace_curve(run) for run in reference.runs}
    law: Law | None = None
    logs = []
    for seed in sorted(curves.keys() & losses.keys()):
        needed = _find_crossing(curves[seed], losses[seed])
        if needed is None:
            try:
                law = law or _law(reference.name, list(curves.values()))
            except SpecError as error:
                return _make_unknown(str(error))
            needed = law.size(losses[seed])
        if needed is None:
            return _make_unknown(
                f"{reference.name} would need more than {DECADE:g} times the budget, or never get there"
            )
        logs.append(log(needed / budget))
    if not logs:
        return _make_unknown("there is no seed in common")
    interval = compute_t_interval(logs, logs) if len(logs) > 1 else None
    ends = None if interval is None else Interval(exp(interval.low), exp(interval.high))
    return TokenRatio(exp(sum(logs) / len(logs)), ends, None)


def _make_unknown(why: str) -> TokenRatio:
    return TokenRatio(None, None, why)


def _trace_curve(run: Run) -> Curve:
    rows = [row for row in run.metrics.to_dicts() if row.get(METRIC) is not None and row["step"]]
    return [(read_costs(run, row)["tokens"], row[METRIC]) for row in rows]


def _find_crossing(curve: Curve, loss: float) -> float | None:
    """Return the tokens at which a curve first reaches a loss, between evaluations on a line in log tokens."""
    for place, (tokens, value) in enumerate(curve):
        if value <= loss:
            if place == 0:
                return tokens
            before, above = curve[place - 1]
            part = (above - loss) / (above - value)
            return exp(log(before) + part * (log(tokens) - log(before)))
    return None


def _law(name: str, curves: Sequence[Curve]) -> Law:
    """Fit the last decade of all curves."""
    end = max(curve[-1][0] for curve in curves)
    return fit([Point(name, *one) for curve in curves for one in curve if one[0] >= end / DECADE], name)
