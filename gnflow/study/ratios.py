"""Estimate how many times more one arm needs than another, paired by seed, with intervals and tests."""

from collections.abc import Sequence
from math import exp, inf, log
from statistics import fmean
from typing import Literal, NamedTuple

from gnflow.study.intervals import Interval, bootstrap_mean, compute_t_interval, run_sign_flip_test, run_t_test
from gnflow.study.results import Result
from gnflow.study.scores import WORDS, Score

Bound = Literal["exact", "at least", "at most", "unknown"]


class Estimate(NamedTuple):
    """The ratio on one axis: the cost of the other arm over that of the reference, above 1 if the reference is better.

    The ends of an interval are infinite or 0 if misses leave no bound.
    """

    factor: float | None
    """Geometric mean over the seeds that both arms have; None if misses of both arms leave it unknown."""
    bound: Bound
    """`at least` if the other arm missed with some seed (its cost so far counts), `at most` if the reference did."""
    interval: Interval | None
    """95 % interval of Student's t on the log ratios; None with one seed."""
    bootstrap: Interval | None
    """95 % percentile interval of the mean log ratio over resampled seeds. With fewer than five seeds it is at most
    their range, which covers far less (see intervals). None with one seed."""
    p_value: float | None
    """Two-sided, paired t-test on the log ratios; None with one seed, after a miss, or if all ratios are equal."""
    p_sign_flip: float | None
    """Two-sided sign-flip test on the log ratios, at least 2^(1 - n) with n seeds; None with one seed or after a
    miss."""


class Ratio(NamedTuple):
    """The ratios of one arm to the reference at one target."""

    target: float
    reference: str
    other: str
    seeds: tuple[int, ...]
    """The seeds that are compared: both arms have them, and at least one of the arms reached the target."""
    axes: dict[str, Estimate]
    """Estimates by axis, in the order of WORDS, without axes that are not recorded, and without seconds if the machine
    was not quiet."""


def estimate_ratio(reference: Result, other: Result, axes: Sequence[str] = tuple(WORDS)) -> Ratio:
    """Pair the runs by seed, and compare them on these axes.

    A seed is left out if neither run reached the target, or if the starting weights did.
    """
    theirs = {score.seed: score for score in other.scores}
    paired = [(mine, theirs[mine.seed]) for mine in reference.scores if mine.seed in theirs]
    pairs = [pair for pair in paired if _is_comparable(*pair)]
    recorded = [axis for axis in axes if all(s.needed[axis] for pair in pairs for s in pair if s.needed)]
    estimates = {axis: _estimate_axis(pairs, axis) for axis in recorded if pairs}
    return Ratio(reference.target, reference.arm, other.arm, tuple(mine.seed for mine, _ in pairs), estimates)


def _is_comparable(mine: Score, theirs: Score) -> bool:
    evaluated = mine.best is not None and theirs.best is not None
    at_start = any(score.needed is not None and not score.needed["steps"] for score in (mine, theirs))
    return evaluated and not at_start and (mine.needed is not None or theirs.needed is not None)


def _compute_log_cost(score: Score, axis: str) -> float:
    cost = (score.needed or score.spent)[axis]
    return log(cost) if cost else -inf


def _estimate_axis(pairs: Sequence[tuple[Score, Score]], axis: str) -> Estimate:
    """Estimate the ratio. A miss leaves a log ratio open on one side; the cost so far bounds it on the other."""
    logs = [_compute_log_cost(theirs, axis) - _compute_log_cost(mine, axis) for mine, theirs in pairs]
    lows = [value if mine.needed else -inf for value, (mine, _) in zip(logs, pairs, strict=True)]
    highs = [value if theirs.needed else inf for value, (_, theirs) in zip(logs, pairs, strict=True)]
    bound = _find_bound(-inf in lows, inf in highs)
    several = len(pairs) > 1
    complete = several and bound == "exact"
    return Estimate(
        None if bound == "unknown" else exp(fmean(logs)),
        bound,
        _exponentiate(compute_t_interval(lows, highs)) if several else None,
        _exponentiate(bootstrap_mean(lows, highs)) if several else None,
        run_t_test(logs) if complete else None,
        run_sign_flip_test(logs) if complete else None,
    )


def _find_bound(mine_missed: bool, theirs_missed: bool) -> Bound:
    if mine_missed and theirs_missed:
        return "unknown"
    return "at most" if mine_missed else "at least" if theirs_missed else "exact"


def _exponentiate(interval: Interval) -> Interval:
    return Interval(exp(interval.low), exp(interval.high))
