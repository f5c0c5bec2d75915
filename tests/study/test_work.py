"""Work on a study: what is started, retried and given up, with an executor that returns codes from a list."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from studies import STUDY, project

from gnflow.commands import work as command
from gnflow.errors import Interrupted
from gnflow.study.work import board
from gnflow.study.work.executor import LOST, Command, find_errors

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


def use(executor: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_make_executor", lambda on, slots: (executor, {}))
    monkeypatch.setattr(board, "PATIENCE", 0.0)


def test_exit_codes_decide_what_is_retried_given_up_and_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = Codes({"trial_adamw_1": [LOST, 6, 7, 5], "trial_muon_1": [4], "trial_muon_2": [7] * 9})
    use(executor, monkeypatch)
    assert command.work(project(tmp_path), on="processes", slots=None, retries=3) == 4
    count = executor.started.count
    assert (count("trial_adamw_1"), count("trial_muon_1"), count("trial_muon_2")) == (4, 1, 4)
    rest = executor.started[executor.started.index("choose_adamw") :]
    assert rest.count("run_adamw_seed_1") == rest.count("run_adamw_seed_2") == 1
    assert "choose_muon" not in executor.started
    out, err = capsys.readouterr()
    assert "trial_adamw_1: killed by signal 9; it is resumed (1 of at most 3)" in out
    assert "no DVC repository is here" in out
    assert "trial_muon_1: exit code 4\nwords of trial_muon_1" in err
    assert "trial_muon_2: exit code 7\nwords of trial_muon_2" in err
    assert executor.calls == ["close"]


@pytest.mark.parametrize(("signals", "calls"), [(1, ["stop", "close"]), (2, ["stop", "kill", "kill", "close"])])
def test_ctrl_c_stops_what_runs_and_a_second_one_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int, calls: list[str]
) -> None:
    executor = Codes({"run_adamw_seed_1": [6], "run_adamw_seed_2": [LOST]}, [signal.SIGINT] * signals)
    use(executor, monkeypatch)
    with pytest.raises(Interrupted, match="stopped by SIGINT; the same command goes on"):
        command.work(project(tmp_path, SEEDS), on="processes", slots=None, retries=3)
    assert executor.started == ["run_adamw_seed_1", "run_adamw_seed_2"]
    assert executor.calls == calls
