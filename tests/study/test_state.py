import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_directories import append, begin, end, experiment, finished, steps

from gnflow.study import state
from gnflow.train import lock
from gnflow.train.run import Run


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    append(begin(tmp_path / "run", experiment()), steps([4.9, 4.4]))
    return tmp_path / "run"


def status(directory: Path) -> str:
    return state.find_status(Run.load(directory))


@pytest.mark.parametrize("word", ["complete", "preempted", "diverged"])
def test_a_run_that_ended_says_how(unfinished: Path, word: str) -> None:
    end(unfinished, steps([4.9, 4.4]), word)
    assert status(unfinished) == word


def test_a_run_is_running_while_its_process_lives(unfinished: Path) -> None:
    with lock.hold(unfinished):
        assert status(unfinished) == "running"


def test_a_resumed_run_is_running_whatever_its_last_session_said(unfinished: Path) -> None:
    end(unfinished, steps([4.9, 4.4]), "preempted")
    os.utime(unfinished / "summary.json", (time.time() - 60,) * 2)
    with lock.hold(unfinished):
        assert status(unfinished) == "running"


def test_a_killed_run_is_unfinished(unfinished: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from gnflow.train import lock
with lock.hold(Path({str(unfinished)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (unfinished / lock.NAME).read_text().startswith("pid ")
    assert status(unfinished) == "unfinished"


def test_asking_does_not_take_the_lock(unfinished: Path) -> None:
    (unfinished / lock.NAME).touch()
    status(unfinished)
    with lock.hold(unfinished):
        pass


def test_a_process_on_another_machine_is_not_asked_after(unfinished: Path) -> None:
    (unfinished / lock.NAME).write_text(f"pid {os.getpid()} on another-host\n")
    assert status(unfinished) == "unfinished"


def test_the_journal_tells_when_it_was_last_heard_of(tmp_path: Path) -> None:
    run = Run.load(finished(tmp_path / "run", experiment(), steps([4.9])))
    os.utime(run.directory / "journal.jsonl", (1000.0, 1000.0))
    assert state.find_last_record(run) == 1000.0
    (run.directory / "journal.jsonl").unlink()
    assert state.find_last_record(run) is None
