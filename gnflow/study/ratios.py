"""How many times more one arm needs than another, seed by seed, and how sure that is."""

from typing import Literal, NamedTuple

Bound = Literal["exact", "at least", "at most", "unknown"]


class Interval(NamedTuple):
    """Its end is infinite, or 0, where a run missed the target: nothing bounds it on that side."""

    low: float
    high: float


class Estimate(NamedTuple):
    """One axis: the cost of the other arm over that of the reference, more than 1 where the reference is better."""

    factor: float | None
    """Geometric mean over the seeds that both arms have. None where misses on both sides leave it unknown."""
    bound: Bound
    """`at least`: the other arm missed with some seed, and what it spent there counts; `at most`: the reference did."""
    interval: Interval | None
    """95 %, of Student's t on the log ratios; None with one seed."""
    bootstrap: Interval | None
    """95 %, percentiles of the mean log ratio over resampled seeds: with n < 5 seeds no wider than their range, which
    covers the truth with a probability of about 1 - 2^(1 - n) only. None with one seed."""
    p_value: float | None
    """Two-sided, paired t-test on the log ratios; None with one seed, after a miss, or where all ratios are equal."""
    p_sign_flip: float | None
    """Two-sided, exact sign-flip test on the log ratios: at least 2^(1 - n) with n seeds. None with one seed or a miss."""


class Ratio(NamedTuple):
    """One arm against the reference at one target."""

    target: float
    reference: str
    other: str
    seeds: tuple[int, ...]
    """Those that are compared: of both arms, and reached by one of them at least."""
    axes: dict[str, Estimate]
    """By axis, in the order of WORDS; without an axis that costs nothing (not recorded)."""
