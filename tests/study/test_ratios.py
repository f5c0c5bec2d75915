from math import exp, inf, log, sqrt
from pathlib import Path

import pytest
from arms import TARGET, arm, run

from gnflow.study.arms import group_runs
from gnflow.study.ratios import Ratio, estimate_ratio
from gnflow.study.results import summarise_arm
from gnflow.train.run import Run


def of(reference: list[Run], other: list[Run]) -> Ratio:
    mine, theirs = group_runs([*reference, *other])
    return estimate_ratio(summarise_arm(mine, TARGET), summarise_arm(theirs, TARGET))


@pytest.fixture
def compared(tmp_path: Path):
    """Ratios of two arms by the steps that they need with each seed."""

    def made(reference: list[int | None], other: list[int | None], **costs) -> Ratio:
        return of(arm(tmp_path / "full_gn", reference, "gauss_newton"), arm(tmp_path / "muon", other, **costs))

    return made


def test_two_seeds_by_hand(compared) -> None:
    """Ratios 5 and 6; log(6/5) / 2 is their standard error, and 12.706 Student's t with one degree of freedom."""
    steps = compared([2, 3], [10, 18]).axes["steps"]
    half = 12.706205 * log(6 / 5) / 2
    assert (steps.factor, steps.bound) == (pytest.approx(sqrt(30)), "exact")
    assert steps.interval == pytest.approx((sqrt(30) * exp(-half), sqrt(30) * exp(half)), rel=1e-6)
    assert steps.bootstrap == pytest.approx((5, 6))
    assert steps.p_value == pytest.approx(0.0341, abs=1e-4)
    assert steps.p_sign_flip == 0.5


def test_three_seeds_by_hand(compared) -> None:
    """Ratios 2, 4 and 8: the bootstrap would call that a difference, Student's t does not."""
    steps = compared([2, 2, 2], [4, 8, 16]).axes["steps"]
    half = 4.302653 * log(2) / sqrt(3)
    assert steps.factor == pytest.approx(4)
    assert steps.interval == pytest.approx((4 * exp(-half), 4 * exp(half)), rel=1e-6)
    assert steps.interval.low < 1
    assert steps.bootstrap == pytest.approx((2, 8))
    assert steps.p_value == pytest.approx(1 - 2 * sqrt(3) / sqrt(14))


def test_every_axis_has_its_own(compared) -> None:
    found = compared([2, 2], [8, 8], passes=5, searched=0, flops=0.75e12, seconds=25.0)
    factors = {axis: estimate.factor for axis, estimate in found.axes.items()}
    expected = {"steps": 4, "passes": 4 * 5 / 65, "tokens": 4 * 8 / 9, "flops": 2, "seconds": 8}
    assert factors == pytest.approx(expected)


def test_one_seed_has_no_interval_and_no_test(compared) -> None:
    steps = compared([2], [8]).axes["steps"]
    assert (steps.factor, steps.bound) == (pytest.approx(4), "exact")
    assert steps[2:] == (None, None, None, None)


def test_only_seeds_of_both_are_paired(tmp_path: Path) -> None:
    muon = [run(tmp_path / f"muon/{seed}", needed, seed) for seed, needed in ((1, 12), (2, 20), (7, 5))]
    found = of(arm(tmp_path / "full_gn", [9, 2, 4], "gauss_newton"), muon)
    assert found.seeds == (1, 2)
    assert found.axes["steps"].factor == pytest.approx(sqrt(6 * 5))
    assert of([run(tmp_path / "gn", 2, 0, "gauss_newton")], muon) == Ratio(TARGET, "gn", found.other, (), {})


def test_a_miss_of_the_other_bounds_the_ratio_from_below(compared) -> None:
    """Ratios 4, at least 20 / 2, and 5."""
    steps = compared([2, 2, 2], [8, None, 10]).axes["steps"]
    assert (steps.factor, steps.bound) == (pytest.approx((4 * 10 * 5) ** (1 / 3)), "at least")
    assert steps.interval.high == steps.bootstrap.high == inf
    assert steps.interval.low == compared([2, 2, 2], [8, 20, 10]).axes["steps"].interval.low
    assert steps.bootstrap.low == pytest.approx(4)
    assert (steps.p_value, steps.p_sign_flip) == (None, None)


def test_a_miss_of_the_reference_bounds_it_from_above(compared) -> None:
    steps = compared([None, 10], [4, 5]).axes["steps"]
    assert (steps.factor, steps.bound) == (pytest.approx(sqrt(4 / 20 * 5 / 10)), "at most")
    assert steps.interval.low == steps.bootstrap.low == 0
    assert steps.bootstrap.high == pytest.approx(0.5)


def test_misses_on_both_sides_leave_nothing_known(compared) -> None:
    steps = compared([None, 10], [4, None]).axes["steps"]
    assert (steps.factor, steps.bound, steps.interval, steps.bootstrap) == (None, "unknown", (0, inf), (0, inf))


def test_a_seed_that_both_missed_is_no_pair(compared) -> None:
    found = compared([None, 2, 2], [None, 8, 8])
    assert found.seeds == (1, 2)
    assert found.axes["steps"].factor == pytest.approx(4)


def test_arms_that_need_the_same_have_a_ratio_of_one_and_no_test(compared) -> None:
    steps = compared([4, 5, 6], [4, 5, 6]).axes["steps"]
    assert (steps.factor, steps.interval, steps.p_value, steps.p_sign_flip) == (1, (1, 1), None, 1)


def test_an_axis_that_was_not_recorded_has_no_ratio(compared) -> None:
    assert "seconds" not in compared([2, 2], [8, 8], seconds=0.0).axes
