from math import atan, inf, log, pi, sqrt

import numpy as np
import pytest

from gnflow.study.intervals import bootstrap_mean, compute_t_interval, run_sign_flip_test, run_t_test

TWO = [log(5), log(6)]
THREE = [log(2), log(4), log(8)]
T_975 = {1: 12.706205, 2: 4.302653}


@pytest.mark.parametrize(("values", "deviation"), [(TWO, log(6 / 5) / sqrt(2)), (THREE, log(2))])
def test_the_t_interval_is_the_textbook_one(values: list[float], deviation: float) -> None:
    half = T_975[len(values) - 1] * deviation / sqrt(len(values))
    mean = sum(values) / len(values)
    assert compute_t_interval(values, values) == pytest.approx((mean - half, mean + half), rel=1e-6)


def test_p_values_are_the_closed_forms_of_one_and_two_degrees_of_freedom() -> None:
    t = (log(5) + log(6)) / log(6 / 5)
    assert run_t_test(TWO) == pytest.approx(1 - 2 / pi * atan(t))
    assert run_t_test(THREE) == pytest.approx(1 - 2 * sqrt(3) / sqrt(14))


def test_few_seeds_bootstrap_to_their_range() -> None:
    """The lowest of the 27 means of three has 1/27 > 2.5 % of the weight."""
    assert bootstrap_mean(TWO, TWO) == pytest.approx((log(5), log(6)))
    assert bootstrap_mean(THREE, THREE) == pytest.approx((log(2), log(8)))


def test_four_values_are_resampled_exactly() -> None:
    """Of 256 means of (0, 1, 2, 4), 5 are at most 1/4 (2.0 %), 15 at most 1/2 (5.9 %)."""
    values = [0.0, 1.0, 2.0, 4.0]
    low, high = bootstrap_mean(values, values)
    # From above: 5 are 3.5 or more (2.0 %), 9 are 3.25 or more (3.5 %).
    assert (low, high) == (0.5, 3.25)


def test_many_values_are_resampled_alike_every_time() -> None:
    values = list(np.random.default_rng(1).normal(size=12))
    assert bootstrap_mean(values, values) == bootstrap_mean(values, values)
    low, high = bootstrap_mean(values, values)
    spread = np.std(values) / sqrt(12)
    assert low == pytest.approx(np.mean(values) - 1.96 * spread, abs=0.3 * spread)
    assert high == pytest.approx(np.mean(values) + 1.96 * spread, abs=0.3 * spread)


@pytest.mark.parametrize("interval", [compute_t_interval, bootstrap_mean])
def test_what_is_not_known_leaves_its_end_open(interval) -> None:
    assert interval([1.0, 2.0, 3.0], [1.0, inf, 3.0]) == (interval([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).low, inf)
    assert interval([1.0, -inf, 3.0], [1.0, 2.0, 3.0]) == (-inf, interval([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).high)


def test_equal_values_have_an_interval_of_no_width_and_no_test() -> None:
    assert compute_t_interval([0.5] * 3, [0.5] * 3) == (0.5, 0.5)
    assert bootstrap_mean([0.5] * 3, [0.5] * 3) == (0.5, 0.5)
    assert run_t_test([0.5] * 3) is None
    assert run_t_test([0.0] * 3) is None
    assert run_sign_flip_test([0.0] * 3) == 1


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.5), (3, 0.25), (5, 0.0625)])
def test_sign_flips_cannot_go_below_what_the_seeds_allow(seeds: int, least: float) -> None:
    assert run_sign_flip_test([1.0 + seed for seed in range(seeds)]) == least


def test_sign_flips_are_counted() -> None:
    """|+-1 +-2 +-4| / 3 against |1 - 2 + 4| = 3: sums 7, 5, 3 reach it, 1 does not."""
    assert run_sign_flip_test([1.0, -2.0, 4.0]) == 0.75


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_normal_log_ratios_the_t_interval_covers_95_in_100_and_the_bootstrap_far_fewer(seeds: int) -> None:
    """1,000 studies: the standard error of a share of 95 % is 0.7 %."""
    draws = np.random.default_rng(seeds).normal(0.3, 0.2, size=(1_000, seeds))
    covered = {
        interval: np.mean([low <= 0.3 <= high for low, high in (interval(row, row) for row in draws)])
        for interval in (compute_t_interval, bootstrap_mean)
    }
    assert covered[compute_t_interval] == pytest.approx(0.95, abs=0.021)
    assert covered[bootstrap_mean] <= 1 - 2.0 ** (1 - seeds) + 0.03
