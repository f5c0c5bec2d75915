"""A run that is killed at a point of a write path and run again equals one that was left alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from equal_runs import assert_equal_but_for_clocks

from gnflow import faults

SCRIPT = Path(__file__).parents[1] / "fault_points.py"
SOURCES = Path(faults.__file__).parent
# A moment of some paths; `make faults` has them all.
SOME = ["journal.in_write:4", "checkpoint.in_file:5"]


def check(root: Path, *wanted: str) -> None:
    """Kills a run at each, and compares."""
    done = subprocess.run(
        [sys.executable, SCRIPT, root, *wanted], capture_output=True, text=True, timeout=900, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stdout, "points that were never passed"
    expected, *killed = (root / name / "runs" / "tiny" for name in ("untouched", *wanted) if name != "rotted")
    assert killed
    for directory in killed:
        assert_equal_but_for_clocks(directory, expected)


def test_a_kill_at_some_points_changes_nothing(tmp_path: Path) -> None:
    check(tmp_path, *SOME)


@pytest.mark.faults
def test_a_kill_while_a_rotted_checkpoint_is_replaced_changes_nothing(tmp_path: Path) -> None:
    check(tmp_path, "rotted", "checkpoint.after_removal")


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", sorted({point.partition(".")[0] for point in faults.POINTS}))
def test_a_kill_at_every_point_changes_nothing(path: str, tmp_path: Path) -> None:
    points = [point for point in faults.POINTS if point.startswith(f"{path}.") and point != "checkpoint.after_removal"]
    check(tmp_path, *points)


def test_every_point_in_the_code_is_declared_and_every_declared_one_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    named = {*re.findall(r'faults\.pass_point\(f?"([^"]+)"', code)}
    assert {point.replace("{name}.", "summary.") for point in named} == {
        point for point in faults.POINTS if point.partition(".")[0] not in {*faults.FILES} - {"summary"}
    }
    written = {Path(name).stem for name in re.findall(r'"(\w+\.(?:json|yaml|parquet))"', code)}
    assert written >= {*faults.FILES}


def test_the_variable_has_a_process_killed_at_the_passing_it_names(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for fault, left in (("summary.before_write:2", "1"), ("summary.before_write", None), ("summary.after_rename", "1")):
        done = write_summaries(tmp_path / fault, fault)
        assert (done.returncode, done.stderr) == (-9, f"GNFLOW_FAULT: killed at {fault.partition(':')[0]}\n")
        summary = tmp_path / fault / "summary.json"
        assert (summary.read_text() if summary.exists() else None) == left
    done = write_summaries(tmp_path / "three", "summary.before_write:4")
    assert (done.returncode, (tmp_path / "three" / "summary.json").read_text()) == (0, "3")


def write_summaries(directory: Path, fault: str) -> subprocess.CompletedProcess[str]:
    """Three, one after the other, in a process with the variable set."""
    code = (
        "import os, sys; from pathlib import Path; from gnflow import faults; from gnflow.train import disk\n"
        "faults.arm(os.environ[faults.VARIABLE])\n"
        "for number in b'123': disk.write(Path(sys.argv[1]) / 'summary.json', bytes([number]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, directory],
        env={**os.environ, faults.VARIABLE: fault}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fault", ["checkpoint.after_wirte", "checkpoint.after_write:0", "checkpoint.after_write:x", ":1"]
)
def test_an_unknown_point_is_a_usage_error_that_lists_the_points(fault: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gnflow", "list"],
        env={**os.environ, faults.VARIABLE: fault}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "GNFLOW_FAULT" in done.stderr
    assert not [point for point in faults.POINTS if point not in done.stderr]
