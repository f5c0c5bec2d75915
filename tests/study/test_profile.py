from pathlib import Path

import pytest
from arms import arm

from gnflow.study.arms import group_runs
from gnflow.study.profile import make_profile
from gnflow.study.results import summarise_arm
from gnflow.train.run import Run


def made(runs: list[Run], targets: tuple[float, ...], axis: str = "steps"):
    return make_profile([summarise_arm(found, target) for target in targets for found in group_runs(runs)], axis)


def test_a_profile_by_hand(tmp_path: Path) -> None:
    """Half way down is half the steps; muon, on the way to 3.5 in 20 steps, is at 3.9 after 12.

    to     seed  full_gn  muon   ratios
    3.90   0     2        4      1   2
    3.90   1     6        12     1   2
    3.40   0     4        8      1   2
    3.40   1     12       miss   1   -
    """
    runs = arm(tmp_path / "full_gn", [4, 12], "gauss_newton") + arm(tmp_path / "muon", [8, None])
    found = made(runs, (3.9, 3.4))
    assert found.problems == ((3.9, 0), (3.9, 1), (3.4, 0), (3.4, 1))
    assert found.curves == {"full_gn": ((1.0, 1.0),), "muon": ((1.0, 0.0), (2.0, 0.75))}
    assert found.scores == pytest.approx({"full_gn": 1, "muon": 0.75 * (4 - 2) / (4 - 1)})


def test_the_axis_decides_who_is_best(tmp_path: Path) -> None:
    runs = arm(tmp_path / "full_gn", [4], "gauss_newton") + arm(tmp_path / "muon", [8], passes=1)
    assert made(runs, (3.9, 3.4)).scores["full_gn"] == 1
    passes = made(runs, (3.9, 3.4), "passes")
    assert passes.curves == {"full_gn": ((1.0, 0.0), (32.5, 1.0)), "muon": ((1.0, 1.0),)}
    assert passes.scores == {"full_gn": 0, "muon": 1}


def test_only_problems_of_all_arms_count_and_unsolved_ones_do(tmp_path: Path) -> None:
    runs = arm(tmp_path / "full_gn", [4, 4, None], "gauss_newton") + arm(tmp_path / "muon", [8, 4])
    found = made([*runs, *arm(tmp_path / "adamw", [2, None], "adamw")], (3.4, 3.3))
    assert found.problems == ((3.4, 0), (3.4, 1), (3.3, 0), (3.3, 1))
    assert found.curves["adamw"] == ((1.0, 0.25),)
    assert found.curves["full_gn"] == ((1.0, 0.25), (2.0, 0.5))
    assert found.curves["muon"] == ((1.0, 0.25), (4.0, 0.5))


def test_no_common_problem_or_no_recorded_cost_is_no_profile(tmp_path: Path) -> None:
    one, two = arm(tmp_path / "full_gn", [4, 4], "gauss_newton"), arm(tmp_path / "muon", [8, 4], seconds=0.0)
    assert made([one[0], two[1]], (3.9, 3.4)) is None
    assert made([*one, *two], (3.9, 3.4), "seconds") is None
