"""Performance profiles (Dolan and More, arXiv:cs/0102001; scored as in AlgoPerf, arXiv:2306.07179)."""

from collections.abc import Sequence
from math import inf
from statistics import fmean
from typing import NamedTuple

from gnflow.study.results import Result

FARTHEST = 4.0  # AlgoPerf integrates up to this tau


class Profile(NamedTuple):
    """For one axis and each tau, the fraction of problems on which an arm costs at most tau times the best."""

    axis: str
    problems: tuple[tuple[float, int], ...]
    """Problems (target, seed) that all arms tried. A problem that no arm solved counts against all."""
    curves: dict[str, tuple[tuple[float, float], ...]]
    """For each arm, the points (tau, fraction of problems) at which the fraction rises, from tau = 1 on."""
    scores: dict[str, float]
    """For each arm, the mean of its curve over 1 <= tau <= 4, which is 1 for an arm that is best everywhere."""


def make_profile(results: Sequence[Result], axis: str) -> Profile | None:
    """Make the profile of all arms at all targets.

    Return None if the arms share no problem or if costs on this axis are zero.
    """
    costs: dict[tuple[float, int], dict[str, float]] = {}
    for result in results:
        for score, cost in zip(result.scores, result.needed[axis], strict=True):
            costs.setdefault((result.target, score.seed), {})[result.arm] = cost
    names = list(dict.fromkeys(result.arm for result in results))
    problems = {problem: tried for problem, tried in costs.items() if len(tried) == len(names) and all(tried.values())}
    if not problems:
        return None
    ratios = {name: [_divide(tried[name], min(tried.values())) for tried in problems.values()] for name in names}
    curves = {name: _make_curve(values) for name, values in ratios.items()}
    scores = {name: fmean(max(FARTHEST - value, 0.0) / (FARTHEST - 1) for value in ratios[name]) for name in names}
    return Profile(axis, tuple(problems), curves, scores)


def _divide(cost: float, best: float) -> float:
    return inf if cost == inf else cost / best


def _make_curve(ratios: Sequence[float]) -> tuple[tuple[float, float], ...]:
    taus = sorted({1.0, *(value for value in ratios if value < inf)})
    return tuple((tau, sum(value <= tau for value in ratios) / len(ratios)) for tau in taus)
