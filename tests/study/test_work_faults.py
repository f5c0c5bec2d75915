"""A study at work in real processes, on this machine and on Ray: stopped, killed, resumed, and recorded in DVC."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mirroring import wait_until
from namespaces import isolate, why_not
from studies import project

from gnflow.train import lock

ROOT = Path(__file__).parents[2]
STEPS = 2000
STUDY = f"""
name: tiny
arms:
  adamw:
    spec: ../../specs/adamw.yaml
    tuning: {{trials: 2, space: {{optimizer.learning_rate: {{low: 0.001, high: 0.1, scale: log}}}}}}
  muon: ../../specs/muon.yaml
set: {{training.steps: {STEPS}, training.checkpoint_every: 100}}
seeds: [1]
targets: [0.1]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git and DVC repository with the study."""
    project(tmp_path, STUDY)
    (tmp_path / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@contextmanager
def working(root: Path, on: str, study: str = "pipelines/tiny") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "gnflow", "study", "work", study, "--on", on, "--slots", "2"]
    process = subprocess.Popen(
        isolate(command) if on == "ray" else command,
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def find_process(run: Path) -> int:
    """The process that works on a run."""
    assert lock.is_held(run)
    found = re.match(r"pid (\d+) ", (run / lock.NAME).read_text())
    assert found
    return int(found[1])


def find_parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.faults
@pytest.mark.parametrize("on", ["processes", "ray"])
def test_a_study_that_was_stopped_and_lost_a_worker_ends_and_dvc_has_nothing_to_do(repository: Path, on: str) -> None:
    if on == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
        if reason := why_not():
            pytest.skip(reason)
    first = repository / "runs" / "tiny" / "adamw" / "trial_1"
    with working(repository, on) as process:
        wait_until(lambda: process.poll() is not None or list(first.glob("checkpoints/step_*")), seconds=240)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopping: every run finishes its step and saves" in output
    assert json.loads((first / "summary.json").read_text())["status"] == "preempted", output
    assert not lock.is_held(first)
    before = (first / "journal.jsonl").read_text()

    with working(repository, on) as process:
        wait_until(
            lambda: process.poll() is not None or len((first / "journal.jsonl").read_text()) > len(before), seconds=240
        )
        child = find_process(first)
        os.kill(child if on == "processes" else find_parent(child), signal.SIGKILL)
        wait_until(lambda: not lives(child), seconds=30)  # it goes with its worker
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "trial_adamw_1: killed by signal 9; it is resumed (1 of at most 3)" in output
    assert "the study is done, and in dvc.lock: pipelines/tiny/report.html" in output
    for run in (repository / "runs" / "tiny").glob("*/[ts]*/journal.jsonl"):
        records = [json.loads(line) for line in run.read_text().splitlines()]
        assert [record["step"] for record in records if record["kind"] == "step"] == list(range(STEPS + 1))
    assert (first / "journal.jsonl").read_text().startswith(before)

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro", "pipelines/tiny/dvc.yaml"]
    done = subprocess.run(
        command, cwd=repository, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert "Running stage" not in done.stdout
    assert "Data and pipelines are up to date." in done.stdout


@pytest.mark.faults
def test_a_study_at_the_rates_of_another_leaves_that_one_alone_and_waits_for_the_lock_of_dvc(repository: Path) -> None:
    first, second = repository / "pipelines" / "tiny", repository / "pipelines" / "second"
    (first / "tuned").mkdir()
    (first / "tuned" / "adamw.yaml").write_text("extends: ../../../specs/adamw.yaml\n")
    pipeline = [sys.executable, "-m", "gnflow", "study", "pipeline", "pipelines/tiny"]
    subprocess.run(pipeline, cwd=repository, capture_output=True, check=True)
    second.mkdir()
    (second / "study.yaml").write_text(
        "name: second\narms: {adamw: ../tiny/tuned/adamw.yaml}\nset: {training.steps: 2}\nseeds: [1]\ntargets: [0.1]\n"
    )
    with working(repository, "processes", "pipelines/second") as process:
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "the study is done, and in dvc.lock: pipelines/second/report.html" in output
    assert (second / "comparison.json").is_file()
    assert not (repository / "runs" / "tiny").exists()
    assert not (first / "dvc.lock").exists()

    hold = "import time; from dvc.repo import Repo\nwith Repo('.').lock: print('held', flush=True); time.sleep(20)"
    with subprocess.Popen([sys.executable, "-c", hold], cwd=repository, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with working(repository, "processes", "pipelines/second") as process:
            output, _ = process.communicate(timeout=240)
        assert other.poll() == 0
    assert process.returncode == 0, output
