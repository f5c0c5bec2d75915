"""The tasks of a study: which are ready, and what the others wait for."""

import json
from pathlib import Path

import pytest
from run_directories import append, begin, end, steps
from studies import STUDY, project

from gnflow.commands.work import list_jobs
from gnflow.study.design import choice
from gnflow.study.design.design import ArmDesign, Design
from gnflow.study.design.load import load
from gnflow.study.design.tasks import list_states, list_tasks
from gnflow.study.design.widening import widen
from gnflow.train import lock

BUDGET = STUDY.replace("targets: [6.0, 5.0]", "budget: {tokens: 4096}").replace(
    "    set: {training.steps: 1}\n", "    set: {training.rows: 2}\n"
).replace("trials: 2", "trials: 4")  # fmt: skip
SCALES = "scales:\n- {name: w16, set: {model.width: 16}}\n- {name: w32, set: {model.width: 32}}\n"


def take_trials(design: Design, arm: ArmDesign) -> None:
    """Write the run directories of finished trials; the largest learning rate is the best."""
    for trial in arm.trials:
        rate = float(str(trial.values["optimizer.learning_rate"]))
        directory = begin(design.locate_run(arm, trial.job), trial.job.experiment)
        append(directory, records := steps([5.0, 4.0 - rate]))
        end(directory, records)


def take_runs(design: Design, arm: ArmDesign) -> None:
    """Write the run directories of finished runs."""
    for job in arm.runs:
        expected = design.load_expected(job)
        assert expected is not None
        directory = begin(design.locate_run(arm, job), expected)
        append(directory, records := steps([5.0, 4.0]))
        end(directory, records)


def states(folder: Path) -> dict[str, str]:
    design = load(folder)
    return dict(list_states(design, list_tasks(design)))


def test_a_task_is_ready_when_what_it_comes_after_is_done(tmp_path: Path) -> None:
    folder = project(tmp_path, BUDGET + SCALES)
    design = load(folder)
    arm = design.find_arm("muon_w16")
    trials, seeds = [f"trial_muon_w16_{k}" for k in (1, 2, 3, 4)], ["run_muon_w16_seed_1", "run_muon_w16_seed_2"]
    assert {states(folder)[name] for name in trials} == {"ready"}
    assert states(folder)["choose_muon_w16"] == states(folder)[seeds[0]] == "waiting"
    take_trials(design, arm)
    assert {states(folder)[name] for name in trials} == {"done"}
    assert states(folder)["choose_muon_w16"] == "ready"
    assert states(folder)["choose_muon_w32"] == "waiting"
    choice.write(design, arm, choice.choose(design, arm))
    assert states(folder)["choose_muon_w16"] == "done"
    assert {states(folder)[name] for name in seeds} == {"ready"}
    take_runs(design, arm)
    assert {states(folder)[name] for name in seeds} == {"done"}

    assert widen(design, [arm])[0].added == 2  # its choice and its runs are open again
    wider = states(folder)
    assert [wider[f"trial_muon_w16_{k}"] for k in range(1, 7)] == ["done"] * 4 + ["ready"] * 2
    assert {wider["choose_muon_w16"], *(wider[name] for name in seeds)} == {"waiting"}


def test_jobs_are_commands_for_a_shell_and_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, BUDGET)
    design = load(folder)
    take_trials(design, design.find_arm("adamw"))
    held = design.locate_run(design.find_arm("muon"), design.find_arm("muon").trials[0].job)
    with lock.hold(held):
        assert list_jobs(folder, json=False) == 0
        lines = capsys.readouterr().out.splitlines()
        assert list_jobs(folder, json=True) == 0
        tree = json.loads(capsys.readouterr().out)
    commands = [line for line in lines if not line.startswith("#")]
    assert commands[0] == "gnflow study choose pipelines/tiny adamw"
    assert len(commands) == 4
    assert all(line.startswith("gnflow study run specs/muon.yaml --set ") for line in commands[1:])
    assert "# run_adamw_seed_1 and run_adamw_seed_2 wait for choose_adamw" in lines
    assert lines[-1] == "# 4 done, 4 ready, 1 running, 5 waiting"

    jobs = {job["name"]: job for job in tree["jobs"]}
    assert [job["command"] for job in tree["jobs"] if job["state"] == "ready"] == commands
    assert jobs["trial_muon_1"]["state"] == "running"
    assert jobs["trial_muon_2"]["run"] == "runs/tiny/muon/trial_2"
    assert jobs["choose_muon"]["waits_for"] == [f"trial_muon_{k}" for k in (1, 2, 3, 4)]
    assert (tree["done"], tree["root"]) == (4, str(tmp_path))
    assert not lock.is_held(held)
