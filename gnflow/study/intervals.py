"""Intervals and tests for the mean of a few values: Student's t, the bootstrap, and the sign-flip test.

    t          mean +- t(0.975, n - 1) s / sqrt(n): exact for normal values, whatever n
    bootstrap  2.5 and 97.5 % of the mean of n values drawn with replacement: needs no normality, but never leaves the
               range of the values: with n of a symmetric kind it misses their centre at least once in 2^(n - 1) times
    z          normal, with the standard deviation over seeds known from elsewhere instead of estimated
    sign flip  share of the 2^n patterns of signs whose mean is at least as far from 0

A value may be known only to lie between two bounds, which may be infinite. The lower end of an interval is then that of
the lower bounds, the upper end that of the upper ones.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # it ships no types

LEVEL = 0.95
EXACT = 6  # number of values up to which all n^n resamples are enumerated
RESAMPLES = 20_000  # number of resamples that are drawn for more values, always the same ones
ROUNDING = 1e-12  # logarithms with a smaller spread count as equal


class Interval(NamedTuple):
    """The two ends of an interval, infinite if there is no bound."""

    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return a plain tree, with null for an infinite end."""
        return {name: end if np.isfinite(end) else None for name, end in self._asdict().items()}


def compute_t_interval(lows: Sequence[float], highs: Sequence[float]) -> Interval:
    """Return the 95 % interval of the mean of at least two values; it has no width if they are equal."""
    return Interval(_compute_mean(lows) - _compute_half_width(lows), _compute_mean(highs) + _compute_half_width(highs))


def bootstrap_mean(lows: Sequence[float], highs: Sequence[float]) -> Interval:
    """Return the 95 % percentile interval of the mean, from all resamples (up to six values) or seeded draws."""
    low, high = (
        np.quantile(np.asarray(values)[_draw_resamples(len(values))].mean(axis=1), at, method="inverted_cdf")
        for values, at in ((lows, (1 - LEVEL) / 2), (highs, (1 + LEVEL) / 2))
    )
    return Interval(float(low), float(high))


def run_t_test(values: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the mean being 0; None if all values are equal."""
    return float(stats.ttest_1samp(values, 0.0).pvalue) if np.ptp(values) > ROUNDING else None


def run_sign_flip_test(values: Sequence[float]) -> float:
    """Return the two-sided p-value of symmetry about 0: exact for up to 14 values, from seeded draws for more."""
    flipped = stats.permutation_test(
        (np.asarray(values),), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    )
    return float(flipped.pvalue)


def compute_z_interval(mean: float, error: float) -> Interval:
    """Return the 95 % interval of a mean whose standard error is known: mean -+ 1.96 error."""
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    return Interval(mean - half, mean + half)


def run_z_test(mean: float, error: float) -> float:
    """Return the two-sided p-value of the mean being 0, if its standard error is known."""
    return float(2 * stats.norm.sf(abs(mean) / error))


def run_lower_z_test(mean: float, error: float) -> float:
    """Return the one-sided p-value of the mean being 0 rather than less, if its standard error is known."""
    return float(stats.norm.cdf(mean / error))


def run_lower_t_test(values: Sequence[float], expected: float) -> float | None:
    """Return the one-sided p-value of the mean being `expected` rather than less; None if all values are equal."""
    if np.ptp(values) <= ROUNDING:
        return None
    return float(stats.ttest_1samp(values, expected, alternative="less").pvalue)


def _compute_mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _compute_half_width(values: Sequence[float]) -> float:
    if not np.isfinite(values).all():
        return np.inf
    if np.ptp(values) <= ROUNDING:
        return 0.0
    return float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))


@lru_cache(maxsize=8)
def _draw_resamples(size: int) -> NDArray[np.int64]:
    """Return the indices of the draws, with shape (resample, draw)."""
    if size <= EXACT:
        return np.array(list(product(range(size), repeat=size)), dtype=np.int64)
    return np.random.default_rng(0).integers(size, size=(RESAMPLES, size))
