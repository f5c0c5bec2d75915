"""Signals, and a file that asks for a checkpoint, met by real processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from equal_runs import assert_equal_but_for_clocks
from mirroring import wait_until
from processes import directory_of, project, running, sessions

from gnflow.errors import EnvironmentProblem, Preempted
from gnflow.train import signals
from gnflow.train.run import Run

SIGNALS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 6), pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults)]
)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one long step that nobody disturbed."""
    spec = project(tmp_path_factory.mktemp("untouched") / "project", 500, steps=1)
    subprocess.run([sys.executable, "-m", "gnflow", "run", spec], check=True, capture_output=True)
    return directory_of(spec)


@SIGNALS
def test_a_step_that_takes_longer_than_the_deadline_is_left(
    number: signal.Signals, code: int, untouched: Path, tmp_path: Path
) -> None:
    spec = project(tmp_path / "project", 500, steps=1)
    with running(spec, GNFLOW_STOP_SECONDS="0.2") as process:
        sent = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate()
        assert time.monotonic() - sent < Run.load(untouched).metrics["time/seconds"][-1]
    assert process.returncode == code, out + err
    assert "for at most 0.2 s" in out
    assert "0.2 s after the signal (GNFLOW_STOP_SECONDS may allow more); the same command resumes" in err
    assert "Traceback" not in err
    assert [path.name for path in (directory_of(spec) / "checkpoints").iterdir()] == ["step_00000000"]
    if number is signal.SIGTERM:
        subprocess.run([sys.executable, "-m", "gnflow", "run", spec], check=True, capture_output=True)
        assert_equal_but_for_clocks(directory_of(spec), untouched)


@SIGNALS
def test_a_second_signal_stops_a_run_at_once(
    number: signal.Signals, code: int, untouched: Path, tmp_path: Path
) -> None:
    spec = project(tmp_path / "project", 500, steps=1)
    with running(spec) as process:
        process.send_signal(number)
        assert process.stdout
        for line in process.stdout:
            if "once more to stop at once" in line:
                break
        sent = time.monotonic()
        process.send_signal(number)
        process.wait()
        assert time.monotonic() - sent < Run.load(untouched).metrics["time/seconds"][-1]
    assert process.returncode == -number
    assert [path.name for path in (directory_of(spec) / "checkpoints").iterdir()] == ["step_00000000"]


def steps_of(spec: Path) -> int:
    return len(Run.load(directory_of(spec)).metrics)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_what_schedulers_send_is_heard(number: signal.Signals) -> None:
    with signals.Stop(lambda line: None) as stop:
        stop.patient = True
        signal.raise_signal(number)
        assert stop.received is number


def test_what_a_closed_session_sends_acts_as_sigterm_does(tmp_path: Path) -> None:
    spec = project(tmp_path / "project", 20, steps=400)
    with running(spec) as process:
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate()
    assert process.returncode == 6, out + err
    assert "of 400; the same command resumes" in err
    reached = steps_of(spec) - 1
    assert (directory_of(spec) / "checkpoints" / f"step_{reached:08d}").is_dir()
    assert Run.load(directory_of(spec)).summary["status"] == "preempted"
    with running(spec):
        assert sessions(spec)[-1]["resumed_from"] == reached


@pytest.mark.faults
def test_a_signal_that_is_sent_again_and_again_is_taken_once(tmp_path: Path) -> None:
    spec = project(tmp_path / "project", 200, steps=400)  # a step is long enough to be hit twice
    with running(spec) as process:
        for _ in range(3):
            process.send_signal(signal.SIGXCPU)
            time.sleep(0.05)
        out, err = process.communicate()
    assert process.returncode == 6, out + err


def test_a_signal_that_is_ignored_when_a_run_begins_stays_ignored(tmp_path: Path) -> None:
    number = signal.SIGHUP
    spec = project(tmp_path / "project", 20, steps=60)
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does for SIGHUP; a child inherits it
    try:
        with running(spec) as process:
            process.send_signal(number)
            out, err = process.communicate()
    finally:
        signal.signal(number, before)
    assert process.returncode == 0, out + err
    assert steps_of(spec) == 61


def test_a_handler_of_the_calling_program_stays(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR1, handler := lambda number, frame: None)
    try:
        with signals.Stop(lambda line: None):
            assert signal.getsignal(signal.SIGUSR1) is handler
            assert signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_step_that_fails_because_its_helpers_were_told_to_stop_too_is_no_fault() -> None:
    def step() -> None:
        with signals.Stop(lambda line: None) as stop:
            stop.patient = True
            signal.raise_signal(signal.SIGUSR1)
            raise OSError("the compiler was killed\nwith these words")

    with pytest.raises(
        Preempted, match=r"within a step \(OSError: the compiler was killed\); the same command resumes"
    ):
        step()


def test_a_signal_that_comes_while_something_is_printed_ends_nothing() -> None:
    def busy(line: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with signals.Stop(busy) as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.received is signal.SIGTERM


def test_a_touched_file_asks_for_a_checkpoint(tmp_path: Path) -> None:
    spec = project(tmp_path / "project", 20, steps=400)
    request = directory_of(spec) / "save"
    with running(spec) as process:
        request.touch()
        wait_until(lambda: not request.exists())
        process.kill()
    saved = [path.name for path in (directory_of(spec) / "checkpoints").iterdir() if path.name.startswith("step_")]
    assert len(saved) == 1
    assert saved[0] > "step_00000000"
    with running(spec):
        assert sessions(spec)[-1]["resumed_from"] == int(saved[0].removeprefix("step_"))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", ""])
def test_a_deadline_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNFLOW_STOP_SECONDS", text)
    with pytest.raises(EnvironmentProblem, match=f"GNFLOW_STOP_SECONDS is `{text}`; expected a number of seconds"):
        signals.Stop(lambda line: None)
