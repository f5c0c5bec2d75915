import json
from pathlib import Path

import pytest
from arms import arm
from run_directories import PROVENANCE, experiment, finished, steps

from gnflow.study.arms import group_runs
from gnflow.study.comparison import compare
from gnflow.study.load import find_objection, measure_load
from gnflow.study.speed import measure_speed
from gnflow.train.run import Run


def run(directory: Path, optimizer: str = "muon", seconds: float = 10.0, **costs) -> Run:
    records = steps([4.9, 4.0, 3.3], seconds=seconds, **costs)
    return Run.load(finished(directory, experiment(optimizer), records))


def test_load_is_the_part_of_all_processors_that_others_took(tmp_path: Path) -> None:
    assert measure_load(run(tmp_path / "quiet")) == 0
    assert measure_load(run(tmp_path / "busy", others=8.0)) == pytest.approx(8 / (4 * 10))  # four processors
    assert measure_load(run(tmp_path / "old", others=None)) is None


def test_steps_before_the_first_that_looked_do_not_count(tmp_path: Path) -> None:
    later = steps([4.9, 4.0, 3.5, 3.3], seconds=10.0, others=8.0)
    for record in later[:2]:
        del record.values["time/others"]  # type: ignore[attr-defined]
    later[2].values["time/others"], later[3].values["time/others"] = 8.0, 16.0  # type: ignore[index]
    found = Run.load(finished(tmp_path / "resumed", experiment("muon"), later))
    assert measure_load(found) == pytest.approx(8 / (4 * 10))


def test_a_run_that_may_use_few_of_many_busy_processors_is_not_said_to_have_been_alone(tmp_path: Path) -> None:
    assert measure_load(run(tmp_path / "container", others=400.0)) == 1.0


def test_seconds_of_a_busy_machine_are_not_compared_and_the_reason_is_told(tmp_path: Path) -> None:
    busy, quiet = run(tmp_path / "busy", others=16.0), run(tmp_path / "quiet", "adamw")
    comparison = compare([busy, quiet])
    assert comparison.verdict[-1] == (
        "Seconds are not compared: other processes took a part of the processors, 40% in busy."
    )
    assert not any("seconds than" in sentence or "fewer seconds" in sentence for sentence in comparison.verdict)
    assert all("seconds" not in ratio.axes for ratio in comparison.ratios)
    assert comparison.to_json()["arms"]["busy"]["load"] == [pytest.approx(0.4)]  # type: ignore[index]


def test_a_little_load_is_quiet_enough(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path / "one", others=3.0), run(tmp_path / "two", "adamw", seconds=20.0)])
    assert "seconds" in comparison.ratios[0].axes
    assert not any("Seconds are not compared" in sentence for sentence in comparison.verdict)


def test_runs_that_did_not_look_make_no_claim_of_seconds(tmp_path: Path) -> None:
    runs = arm(tmp_path / "gn", [4, 5, 6, 5, 4], "gauss_newton", others=None) + arm(tmp_path / "muon", [9] * 5)
    told = find_objection(group_runs(runs))
    assert told == (
        "Seconds are not compared: how busy the machine was is not recorded for "
        "gn (seed 0), gn (seed 1), gn (seed 2) and 2 more runs."
    )
    comparison = compare(runs, [3.9, 3.4])
    assert told in comparison.verdict
    assert "seconds" not in comparison.profiles


def test_seconds_on_different_devices_are_not_compared(tmp_path: Path) -> None:
    runs = [run(tmp_path / "one"), run(tmp_path / "two", "adamw")]
    session = {"available": 4, "device": "NVIDIA H100"}
    (tmp_path / "two" / "provenance.json").write_text(json.dumps({**PROVENANCE, "sessions": [session]}))
    assert compare(runs).verdict[-1] == ("Seconds are not compared: the runs were not all on the same kind of device.")


def test_a_plan_is_not_priced_by_runs_on_a_busy_machine_where_there_are_others(tmp_path: Path) -> None:
    def sized(name: str, seconds: float, others: float | None = 0.0) -> None:
        directory = run(tmp_path / name, seconds=seconds, others=others).directory
        plan = {"device": "cpu", "regions": {"gradient": {"flops": 10**9}}}
        (directory / "plan.json").write_text(json.dumps(plan))

    sized("busy", 100.0, 80.0)
    assert measure_speed(tmp_path, "cpu", 10**9) == pytest.approx(1.5e12 / 100)
    sized("quiet", 10.0)
    assert measure_speed(tmp_path, "cpu", 10**9) == pytest.approx(1.5e12 / 10)
