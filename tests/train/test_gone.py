"""Run directories that are removed, emptied, moved or replaced while a real process is at work in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mirroring import wait_until
from processes import directory_of, project, running

from gnflow.errors import DiskProblem
from gnflow.train import disk
from gnflow.train.journal import Event, Journal


def remove(run: Path) -> None:
    shutil.rmtree(run)


def empty(run: Path) -> None:
    for path in run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(run: Path) -> None:
    shutil.copytree(run, run.with_name("copy"))
    shutil.rmtree(run)
    run.with_name("copy").rename(run)


def move(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("change", "fate"),
    [
        (remove, "was removed"),
        (move, "was moved to"),
        pytest.param(empty, "was emptied", marks=pytest.mark.faults),
        pytest.param(replace, "holds another run", marks=pytest.mark.faults),
    ],
)
def test_a_run_whose_directory_is_gone_says_what_is_lost_and_writes_nothing(
    change: Callable[[Path], None], fate: str, tmp_path: Path
) -> None:
    spec = project(tmp_path / "project", 20, steps=100_000)
    run = directory_of(spec)
    with running(spec) as process:
        wait_until(lambda: (run / "journal.jsonl").read_bytes().count(b"\n") > 3)
        change(run)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 8, out + err
    assert f"{run} {fate}" in err
    if change is move:
        assert f"{run.with_name('elsewhere')} while" in err
        assert "was the last on record; give --run-dir its new place, and the run resumes there." in err
    else:
        assert "The records and checkpoints of all steps up to " in err
        assert "minutes of work); the same command begins the run again." in err
    if change in (remove, move):
        assert not run.exists()
    if change is empty:
        assert [path.name for path in run.iterdir()] == []


def test_a_journal_that_is_gone_is_noticed_before_the_next_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "journal.jsonl")
    journal.record(Event(0, 0.0, "begun", "it goes well"))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(disk.Gone, match="run was removed while"):
        journal.record(Event(1, 0.0, "goes on", "it does not"))
    with pytest.raises(DiskProblem):
        disk.write(tmp_path / "run" / "summary.json", b"{}")
    assert not (tmp_path / "run").exists()
    journal.close()
    disk.write(tmp_path / "run" / "summary.json", b"{}")  # another process may begin there now
