"""How many times more one arm needs than another, seed by seed, and how sure that is."""

from collections.abc import Sequence
from math import exp, inf, log
from statistics import fmean
from typing import Literal, NamedTuple

from gnflow.study.intervals import Interval, bootstrap, sign_flip_test, t_interval, t_test
from gnflow.study.results import Result
from gnflow.study.scores import WORDS, Score

Bound = Literal["exact", "at least", "at most", "unknown"]


class Estimate(NamedTuple):
    """One axis: the cost of the other arm over that of the reference, more than 1 where the reference is better.

    The ends of an interval are infinite, or 0, where misses leave nothing to bound them.
    """

    factor: float | None
    """Geometric mean over the seeds that both arms have. None where misses on both sides leave it unknown."""
    bound: Bound
    """`at least`: the other arm missed with some seed, and what it spent there counts; `at most`: the reference did."""
    interval: Interval | None
    """95 %, of Student's t on the log ratios; None with one seed."""
    bootstrap: Interval | None
    """95 %, percentiles of the mean log ratio over resampled seeds; below five seeds their range at most, which covers
    far less (see intervals). None with one seed."""
    p_value: float | None
    """Two-sided, paired t-test on the log ratios; None with one seed, after a miss, or where all ratios are equal."""
    p_sign_flip: float | None
    """Two-sided, sign-flip test on the log ratios: 2^(1 - n) or more with n seeds. None with one seed or a miss."""


class Ratio(NamedTuple):
    """One arm against the reference at one target."""

    target: float
    reference: str
    other: str
    seeds: tuple[int, ...]
    """Those that are compared: of both arms, and reached by one of them at least."""
    axes: dict[str, Estimate]
    """By axis, in the order of WORDS; without an axis that costs nothing (not recorded), and without seconds where the
    machine was not quiet."""


def ratio(reference: Result, other: Result, axes: Sequence[str] = tuple(WORDS)) -> Ratio:
    """Pairs the runs by seed, and compares them on these axes.

    No seed is left where neither reached the target, or the starting weights did.
    """
    theirs = {score.seed: score for score in other.scores}
    paired = [(mine, theirs[mine.seed]) for mine in reference.scores if mine.seed in theirs]
    pairs = [pair for pair in paired if _comparable(*pair)]
    recorded = [axis for axis in axes if all(s.needed[axis] for pair in pairs for s in pair if s.needed)]
    estimates = {axis: _estimate(pairs, axis) for axis in recorded if pairs}
    return Ratio(reference.target, reference.arm, other.arm, tuple(mine.seed for mine, _ in pairs), estimates)


def _comparable(mine: Score, theirs: Score) -> bool:
    evaluated = mine.best is not None and theirs.best is not None
    at_start = any(score.needed is not None and not score.needed["steps"] for score in (mine, theirs))
    return evaluated and not at_start and (mine.needed is not None or theirs.needed is not None)


def _log_cost(score: Score, axis: str) -> float:
    cost = (score.needed or score.spent)[axis]
    return log(cost) if cost else -inf


def _estimate(pairs: Sequence[tuple[Score, Score]], axis: str) -> Estimate:
    """A miss leaves the log ratio open on one side; on the other it is bounded by what was spent."""
    logs = [_log_cost(theirs, axis) - _log_cost(mine, axis) for mine, theirs in pairs]
    lows = [value if mine.needed else -inf for value, (mine, _) in zip(logs, pairs, strict=True)]
    highs = [value if theirs.needed else inf for value, (_, theirs) in zip(logs, pairs, strict=True)]
    bound = _bound(-inf in lows, inf in highs)
    several = len(pairs) > 1
    complete = several and bound == "exact"
    return Estimate(
        None if bound == "unknown" else exp(fmean(logs)),
        bound,
        _exponential(t_interval(lows, highs)) if several else None,
        _exponential(bootstrap(lows, highs)) if several else None,
        t_test(logs) if complete else None,
        sign_flip_test(logs) if complete else None,
    )


def _bound(mine_missed: bool, theirs_missed: bool) -> Bound:
    if mine_missed and theirs_missed:
        return "unknown"
    return "at most" if mine_missed else "at least" if theirs_missed else "exact"


def _exponential(interval: Interval) -> Interval:
    return Interval(exp(interval.low), exp(interval.high))
