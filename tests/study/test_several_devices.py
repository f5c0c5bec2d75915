"""Runs on several devices in comparisons: device-seconds beside seconds, and one run for each seed."""

from dataclasses import replace
from pathlib import Path

import pytest
from arms import TARGET, arm
from run_directories import experiment, finished, steps

from gnflow.commands.compare import compare as command
from gnflow.errors import SpecError
from gnflow.study.arms import group_runs
from gnflow.study.comparison import compare
from gnflow.study.load import describe_device
from gnflow.train.run import Run

LOSSES = [4.4, 3.9, 3.4]


def run(directory: Path, devices: int, optimizer: str = "muon", seconds: float = 12.0) -> Run:
    """Three steps, of which the first is on one device."""
    records = steps(LOSSES, seconds=seconds)
    if devices > 1:
        times = {1: seconds, 2: seconds + devices * seconds}
        records = [
            replace(one, values={**one.values, "time/device_seconds": times[one.step]}) if one.step else one
            for one in records
        ]
    return Run.load(finished(directory, experiment(optimizer), records, parameters=1000))


def test_device_seconds_stand_beside_seconds_with_the_number_of_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, three = run(tmp_path / "one", 1), run(tmp_path / "three", 3, "adamw")
    assert describe_device(three) == "cpu, 2 devices", "a step on one and one on three"
    costs = {result.arm: result.median for result in compare([one, three]).results}
    assert (costs["three"]["seconds"], costs["three"]["device_seconds"]) == (24, 48)
    assert (costs["one"]["seconds"], costs["one"]["device_seconds"]) == (24, 24)
    assert "Seconds are not compared: the runs were on different numbers of devices, 1 in one and 2 in three." in (
        compare([one, three]).verdict
    )
    command([one.directory, three.directory], targets=[TARGET], reference=None, json=False, everything=True)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("three") and "1 of 1" in line)
    assert row.split()[-5:] == ["24.0", "s", "48.0", "s", "2"], row


def test_runs_on_one_device_have_no_such_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = arm(tmp_path / "muon", [4]) + arm(tmp_path / "adamw", [8], "adamw")
    command([each.directory for each in runs], targets=[TARGET], reference=None, json=False, everything=True)
    assert "device time" not in capsys.readouterr().out


def test_runs_of_one_seed_on_different_numbers_of_devices_count_as_one(tmp_path: Path) -> None:
    one, four = run(tmp_path / "one", 1), run(tmp_path / "four", 4)
    (found,) = group_runs([one, four])
    assert found.runs == (one,)
    (warning,) = (said for said in compare([one, four]).warnings if "which counts once" in said)
    assert warning.startswith(f"{tmp_path}/one and {tmp_path}/four are one run on 1 and on 2.5 devices")
    with pytest.raises(SpecError, match="are runs of one spec with one seed"):
        group_runs([one, run(tmp_path / "again", 1)])
