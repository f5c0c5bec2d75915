from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from arms import PARAMETERS, arm, run
from run_directories import experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.arms import group_runs
from gnflow.train.run import Run


def test_runs_that_differ_in_seed_name_and_tracking_are_one_arm(tmp_path: Path) -> None:
    [found] = group_runs(arm(tmp_path / "muon", [12, 10, 14])[::-1])
    assert (found.name, found.kind, found.trials) == ("muon", "muon", 8)
    assert found.seeds == (0, 1, 2)
    assert found.labels == ("muon (seed 0)", "muon (seed 1)", "muon (seed 2)")
    spec = experiment("muon").model_copy(update={"name": "elsewhere", "tuning": found.runs[0].experiment.tuning})
    tree = spec.model_dump(mode="json") | {"tracking": "none"}
    tree["training"]["seed"] = 3
    mirrored = Run.load(finished(tmp_path / "muon/seed_3", type(spec).model_validate(tree), steps([4.9, 3.3])))
    assert [a.seeds for a in group_runs([*found.runs, mirrored])] == [(0, 1, 2, 3)]


@pytest.mark.parametrize("other", [{"optimizer": "adamw"}, {"trials": 2}])
def test_any_other_difference_makes_another_arm(tmp_path: Path, other: dict) -> None:
    runs = arm(tmp_path / "one", [12, 10]) + arm(tmp_path / "two", [12, 10], **other)
    assert [(a.name, a.seeds) for a in group_runs(runs)] == [("one", (0, 1)), ("two", (0, 1))]


def test_two_runs_of_one_spec_and_seed_are_refused_by_name(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, 12, seed=4) for name in ("a", "b")]
    with pytest.raises(SpecError, match=rf"{tmp_path}/a and {tmp_path}/b are runs of one spec with one seed \(4\)"):
        group_runs(runs)


@pytest.mark.parametrize(
    ("directories", "name"),
    [
        (["s/full_gn/seed_1", "s/full_gn/seed_2"], "full_gn"),
        (["s/full_gn/seed_1"], "full_gn"),
        (["full_gn"], "full_gn"),
        (["full_gn_1", "full_gn_2"], "full_gn"),
        (["muon_seed_1", "muon_seed_2"], "muon"),
        (["muon", "muon-again"], "muon"),
        (["muon1", "muon2"], "muon1+muon2"),
    ],
)
def test_an_arm_is_named_for_what_its_directories_have_in_common(
    tmp_path: Path, directories: list[str], name: str
) -> None:
    runs = [run(tmp_path / directory, 3, seed) for seed, directory in enumerate(directories)]
    assert [found.name for found in group_runs(runs)] == [name]


def test_arms_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = arm(tmp_path / "a/muon", [3, 3]) + arm(tmp_path / "b/muon", [3, 3], trials=1)
    assert [found.name for found in group_runs(runs)] == [f"{tmp_path}/a/muon", f"{tmp_path}/b/muon"]
    one_folder = [run(tmp_path / f"muon/seed_{trials}", 3, trials, trials=trials) for trials in (1, 2)]
    assert [found.name for found in group_runs(one_folder)] == [f"{tmp_path}/muon/seed_1", f"{tmp_path}/muon/seed_2"]


def test_the_ledger_holds_rates_update_sizes_and_losses(tmp_path: Path) -> None:
    [muon, full_gn] = group_runs([run(tmp_path / "a", 4, 0), run(tmp_path / "b", 4, 0, "gauss_newton")])
    assert muon.learning_rates == {"": 0.02, "others": 0.003}
    assert set(full_gn.learning_rates) == {"inner", "inner.others"}
    assert muon.update_rms == pytest.approx(0.3 / sqrt(PARAMETERS))
    assert (muon.start, muon.best) == (4.4, 3.4)


def test_what_was_not_recorded_is_not_made_up(tmp_path: Path) -> None:
    records = [replace(step, values={}) for step in steps([4.9, 3.3])]
    [found] = group_runs([Run.load(finished(tmp_path / "blind", experiment(), records))])
    assert (found.update_rms, found.start, found.best) == (None, None, None)
