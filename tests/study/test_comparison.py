import json
from collections.abc import Mapping
from math import inf
from pathlib import Path

import pytest
from arms import arm, run
from run_directories import experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.comparison import compare
from gnflow.train.run import Run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """full_gn needs 4, 6 and 5 steps to 3.4; muon 8, 12 and misses."""
    return arm(tmp_path / "full_gn", [4, 6, 5], "gauss_newton") + arm(tmp_path / "muon", [8, 12, None], passes=1)


def test_an_arm_is_summed_up_by_its_median_with_misses_as_infinity(runs: list[Run]) -> None:
    full_gn, muon = compare(runs).results
    assert (full_gn.needed["steps"], full_gn.median["steps"], full_gn.reached, full_gn.misses) == ((4, 6, 5), 5, 3, 0)
    assert (muon.needed["steps"], muon.median["steps"], muon.reached, muon.misses) == ((8, 12, inf), 12, 2, 1)
    assert muon.needed["seconds"] == (100.0, 150.0, inf)


def test_half_the_seeds_missing_is_a_median_of_infinity(tmp_path: Path) -> None:
    [found] = compare(arm(tmp_path / "muon", [8, None])).results
    assert (found.median["steps"], found.reached) == (inf, 1)


def test_targets_are_those_of_the_specs_unless_given_and_go_down(runs: list[Run]) -> None:
    assert compare(runs).targets == (3.4,)
    comparison = compare(runs, [3.4, 3.9, 3.4])
    assert (comparison.targets, comparison.headline) == ((3.9, 3.4), 3.4)
    assert [(result.arm, result.target) for result in comparison.results] == [
        ("full_gn", 3.9),
        ("muon", 3.9),
        ("full_gn", 3.4),
        ("muon", 3.4),
    ]
    assert [result.median["steps"] for result in comparison.select_results(3.9)] == [3, 6]


def test_runs_without_a_common_target_are_compared_at_equal_budgets(tmp_path: Path) -> None:
    def aimed(name: str, target: dict | None) -> Run:
        return Run.load(finished(tmp_path / name, experiment("muon", target=target), steps([4.9, 3.3])))

    one, other, none = aimed("one", {"at_most": 3.4}), aimed("other", {"at_most": 3.0}), aimed("none", None)
    comparison = compare([one, other])
    assert (comparison.targets, comparison.headline, comparison.results) == ((), None, ())
    assert [budget.axis for budget in comparison.budgets] == ["steps", "passes", "tokens", "flops", "seconds"]
    assert comparison.verdict[0] == (
        "The runs have no target in common (3.00 and 3.40 are their own), so their held-out losses are compared at "
        "equal budgets; `--target` compares what each needed to reach one."
    )
    assert compare([none]).targets == ()
    assert compare([one, none]).targets == (3.4,)
    assert compare([one, other, none], [3.5]).targets == (3.5,)
    assert compare([one, other, none], [3.5]).budgets == ()


def test_the_reference_is_the_arm_with_the_fewest_steps_unless_named(runs: list[Run]) -> None:
    assert compare(runs[::-1]).reference == "full_gn"
    [ratio] = compare(runs, reference="muon").ratios
    assert (ratio.reference, ratio.other, ratio.axes["steps"].bound) == ("muon", "full_gn", "at most")
    with pytest.raises(SpecError, match=r"no arm `soap`.*the arms are full_gn and muon"):
        compare(runs, reference="soap")


def test_an_arm_that_mostly_misses_is_no_reference(tmp_path: Path) -> None:
    lucky = arm(tmp_path / "lucky", [2, None, None])
    assert compare([*lucky, *arm(tmp_path / "steady", [9, 9, 9], "adamw")]).reference == "steady"


def test_several_targets_and_arms_have_a_profile_on_every_axis(runs: list[Run]) -> None:
    assert compare(runs).profiles == {}
    assert compare(runs[:3], [3.9, 3.4]).profiles == {}
    profiles = compare(runs, [3.9, 3.4]).profiles
    assert list(profiles) == ["steps", "passes", "tokens", "flops", "seconds"]
    assert profiles["steps"].scores["full_gn"] == 1
    assert profiles["passes"].scores["full_gn"] == pytest.approx(1 / 6)  # the one that muon missed, to 3.4


def test_it_is_json_without_infinities_that_names_lead_through(runs: list[Run]) -> None:
    text = json.dumps(compare(runs, [3.9, 3.4]).to_json(), allow_nan=False)
    tree = json.loads(text)
    assert tree["metric"] == "loss/held_out"
    assert tree["arms"]["muon"] | {"update_rms": 0} == {
        "optimizer": "muon",
        "seeds": [0, 1, 2],
        "trials": 8,
        "load": [0.0, 0.0, 0.0],
        "learning_rates": {"optimizer": 0.02, "others": 0.003},
        "update_rms": 0,
        "start": 4.4,
        "best": 3.4,
    }
    muon = tree["results"]["3.40"]["muon"]
    assert (muon["reached"], muon["missed"]) == (2, 1)
    assert muon["steps"] == {
        "median": 12,
        "needed": {"0": 8, "1": 12, "2": None},
        "spent": {"0": 8, "1": 12, "2": 20},
    }
    ratio = tree["ratios"]["3.40"]["muon"]
    assert ratio["seeds"] == [0, 1, 2]
    assert ratio["steps"]["factor"] == pytest.approx((2 * 2 * 4) ** (1 / 3))
    assert ratio["steps"]["bound"] == "at least"
    assert ratio["steps"]["bootstrap"] == {"low": pytest.approx(2), "high": None}
    assert tree["profiles"]["steps"]["scores"]["full_gn"] == 1


def test_the_json_of_the_same_runs_is_the_same(runs: list[Run]) -> None:
    again = [Run.load(run.directory) for run in runs]
    assert json.dumps(compare(runs).to_json()) == json.dumps(compare(again).to_json())


def test_misses_on_both_sides_are_json_too(tmp_path: Path) -> None:
    runs = arm(tmp_path / "one", [None, 4]) + arm(tmp_path / "two", [4, None], "adamw") + [
        run(tmp_path / "young", None, 0, "soap", seconds=0.0)
    ]  # fmt: skip
    tree = compare(runs, [3.9, 3.4, 1.0]).to_json()
    json.dumps(tree, allow_nan=False)
    assert isinstance(tree["ratios"], Mapping)
