"""A run may be killed at any moment; run again to its end, it equals one that was left alone."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import golden
import pytest
import tiny
from equal_runs import assert_equal_but_for_clocks
from ruamel.yaml import YAML

from gnflow.train.journal import read
from gnflow.train.run import Run

KILLER = Path(__file__).parents[1] / "killer.py"
STEPS = 14
OPTIMIZERS = [*(pytest.param(name, marks=pytest.mark.faults) for name in ("adamw", "muon")), "gauss_newton"]


def project(root: Path, optimizer: str, /, **changes: object) -> Path:
    """A project with the spec that all runs here follow; returns the spec."""
    tiny.write_project(root)
    path = root / "tiny.yaml"
    tree = tiny.tiny(optimizer, steps=STEPS, checkpoint_every=4, temporary_checkpoint_minutes=0.002)
    YAML().dump(tree | changes, path)
    return path


def command(spec: Path) -> list[str]:
    return [sys.executable, "-m", "gnflow", "run", str(spec)]


@pytest.fixture(scope="module", params=OPTIMIZERS)
def untouched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The run directory of a run that nothing disturbed."""
    spec = project(tmp_path_factory.mktemp("untouched") / "project", request.param)
    subprocess.run(command(spec), check=True, capture_output=True)
    return request.param, spec.parent / "runs" / "tiny"


def killed(spec: Path, seed: int, kills: int) -> list[Path]:
    """The directories of runs that were killed so many times, all together."""
    done = subprocess.run(
        [sys.executable, KILLER, spec, str(seed), str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    directories = sorted((spec.parent / "runs").iterdir())
    assert len(directories) == int(done.stdout)
    sessions = [json.loads((path / "provenance.json").read_text())["sessions"] for path in directories]
    resumed = [session["resumed_from"] for some in sessions for session in some if session["resumed_from"]]
    assert len(resumed) >= kills // 4, "it hardly ever resumed"
    return directories


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.faults)])
def test_a_run_killed_again_and_again_equals_one_that_was_not(
    kills: int, untouched: tuple[str, Path], tmp_path: Path
) -> None:
    optimizer, expected = untouched
    for directory in killed(project(tmp_path / "project", optimizer), seed=1, kills=kills):
        assert_equal_but_for_clocks(directory, expected)


@pytest.mark.faults
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_run_that_undoes_steps_and_is_killed_again_and_again_equals_one_that_was_not(
    policy: str, tmp_path: Path
) -> None:
    # A rule so strict that a loss with a little bad luck is a spike.
    rule = {"on_nonfinite": policy, "spike": {"above": 0.01, "window": 2}, "max_undone": STEPS, "rows": 1}
    training = tiny.tiny(steps=STEPS, checkpoint_every=4, temporary_checkpoint_minutes=0.002, **rule)["training"]
    specs = [project(tmp_path / name, "adamw", training=training) for name in ("untouched", "project")]
    subprocess.run(command(specs[0]), check=True, capture_output=True)
    expected = specs[0].parent / "runs" / "tiny"
    undone = read(expected / "journal.jsonl").events
    assert 2 <= len(undone) <= STEPS - 4, "too few or too many to mean anything"
    for directory in killed(specs[1], seed=3, kills=6):
        assert_equal_but_for_clocks(directory, expected)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["off", "default"])
@pytest.mark.parametrize("name", golden.OPTIMIZERS)
def test_every_optimizer_killed_twenty_times_equals_one_that_was_not(name: str, mode: str, tmp_path: Path) -> None:
    changes = {"optimizer": golden.OPTIMIZERS[name], "compile": {"mode": mode}}
    specs = [project(tmp_path / where, "adamw", **changes) for where in ("untouched", "project")]
    subprocess.run(command(specs[0]), check=True, capture_output=True)
    for directory in killed(specs[1], seed=2, kills=20):
        assert_equal_but_for_clocks(directory, specs[0].parent / "runs" / "tiny")


def started(spec: Path, lines: int) -> subprocess.Popen[str]:
    """A run whose journal has grown by so many lines."""
    journal = spec.parent / "runs" / "tiny" / "journal.jsonl"

    def length() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    before = length()
    process = subprocess.Popen(command(spec), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while length() < before + lines and process.poll() is None:
        time.sleep(0.001)
    return process


@pytest.mark.faults
def test_a_run_that_is_killed_interrupted_and_preempted_equals_one_that_was_not(tmp_path: Path) -> None:
    specs = [project(tmp_path / name, "adamw") for name in ("untouched", "project")]
    subprocess.run(command(specs[0]), check=True, capture_output=True)
    expected, directory = (spec.parent / "runs" / "tiny" for spec in specs)
    for number, code, status in (
        (signal.SIGKILL, -9, None),
        (signal.SIGINT, 130, "preempted"),
        (signal.SIGTERM, 6, "preempted"),
    ):
        process = started(specs[1], lines=2)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        assert Run.load(directory).summary.get("status") == status
        if status:
            assert "finishing this step and saving, for at most 25 s; once more to stop at once" in out
            assert "the same command resumes" in err
    subprocess.run(command(specs[1]), check=True, capture_output=True)
    assert_equal_but_for_clocks(directory, expected)


@pytest.mark.faults
@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_a_kill_at_any_file_operation_changes_nothing(policy: str, tmp_path: Path) -> None:
    script = KILLER.with_name("crash_matrix.py")
    done = subprocess.run([sys.executable, script, tmp_path, policy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80, "the operations were not seen"
