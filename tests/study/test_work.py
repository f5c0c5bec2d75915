"""Work on a study: what is started, retried and given up, with an executor that returns codes from a list."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from studies import STUDY, project

from gnflow.commands import work as command
from gnflow.errors import EnvironmentProblem, Interrupted
from gnflow.study.work import board, executor
from gnflow.study.work.executor import LOST, Command, find_errors
from gnflow.study.work.on_ray import OnRay

SEEDS = STUDY.replace("trials: 2", "trials: 0")


class Codes:
    """An executor whose commands end at once, with the exit codes that are given for each, then with 0."""

    slots = 2

    def __init__(self, codes: dict[str, list[int]], signals: Sequence[signal.Signals] = ()) -> None:
        self.codes, self.signals = codes, list(signals)
        self.started: list[str] = []
        self.running: dict[str, Command] = {}
        self.calls: list[str] = []

    def start(self, name: str, command: Command) -> None:
        assert len(self.running) < self.slots
        self.started.append(name)
        self.running[name] = command

    def collect(self, seconds: float) -> Sequence[tuple[str, int]]:
        if self.signals:
            os.kill(os.getpid(), self.signals.pop(0))
            return []
        name, ended = next(iter(self.running.items()))
        del self.running[name]
        find_errors(ended.output).write_text(f"words of {name}\n")
        code = self.codes[name].pop(0) if self.codes.get(name) else 0
        return [(name, code)]

    def stop(self) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")

    def close(self) -> None:
        self.calls.append("close")


def use(codes: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_make_executor", lambda on, slots: (codes, {}))
    monkeypatch.setattr(board, "PATIENCE", 0.0)


def test_exit_codes_decide_what_is_retried_given_up_and_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = Codes({"trial_adamw_1": [LOST, 6, 7, 5], "trial_muon_1": [4], "trial_muon_2": [7] * 9})
    use(codes, monkeypatch)
    assert command.work(project(tmp_path), on="processes", slots=None, retries=3) == 4
    count = codes.started.count
    assert (count("trial_adamw_1"), count("trial_muon_1"), count("trial_muon_2")) == (4, 1, 4)
    rest = codes.started[codes.started.index("choose_adamw") :]
    assert rest.count("run_adamw_seed_1") == rest.count("run_adamw_seed_2") == 1
    assert "choose_muon" not in codes.started
    out, err = capsys.readouterr()
    assert "trial_adamw_1: killed by signal 9; it is resumed (1 of at most 3)" in out
    assert "no DVC repository is here" in out
    assert "trial_muon_1: exit code 4\nwords of trial_muon_1" in err
    assert "trial_muon_2: exit code 7\nwords of trial_muon_2" in err
    assert codes.calls == ["close"]


@pytest.mark.parametrize(("signals", "calls"), [(1, ["stop", "close"]), (2, ["stop", "kill", "kill", "close"])])
def test_ctrl_c_stops_what_runs_and_a_second_one_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int, calls: list[str]
) -> None:
    codes = Codes({"run_adamw_seed_1": [6], "run_adamw_seed_2": [LOST]}, [signal.SIGINT] * signals)
    use(codes, monkeypatch)
    with pytest.raises(Interrupted, match="stopped by SIGINT; the same command goes on"):
        command.work(project(tmp_path, SEEDS), on="processes", slots=None, retries=3)
    assert codes.started == ["run_adamw_seed_1", "run_adamw_seed_2"]
    assert codes.calls == calls


class Ended:
    """A process that has ended."""

    returncode = 0

    def poll(self) -> int:
        return 0


def test_each_slot_has_a_gpu_of_its_own_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def start(command: Command, *, apart: bool) -> Ended:
        seen.append(command.environment["CUDA_VISIBLE_DEVICES"])
        return Ended()

    monkeypatch.setattr(executor, "start_process", start)
    processes, idle = executor.Processes(2, ["3", "5"]), Command((), "", "", {})
    for first, second in (("a", "b"), ("c", "d")):
        processes.start(first, idle)
        processes.start(second, idle)
        assert {*seen[-2:]} == {"3", "5"}
        assert [*processes.collect(1.0)] == [(first, 0), (second, 0)]


def test_ray_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "before")  # so that it is put back
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentProblem, match=r"--on ray needs Ray .*pip install 'gnflow\[ray\]'"):
        OnRay(2, 0)
    assert os.environ["RAY_AUTH_MODE"] == "token"
