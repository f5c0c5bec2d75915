"""Pipelines of studies, in a real DVC repository."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mirroring import wait_until
from ruamel.yaml import YAML
from studies import STUDY, project

from gnflow.commands.study import plan_study, run_job
from gnflow.errors import SpecError
from gnflow.study.design import choice, pipeline
from gnflow.study.design.load import load
from gnflow.train import lock

ROOT = Path(__file__).parents[2]
ONCE = STUDY.replace("seeds: [1, 2]", "seeds: [1]").replace("trials: 2", "trials: 1")


def call(root: Path, *command: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def work_and_kill_one(root: Path, run: Path) -> str:
    """What `gnflow study work` says, while the process of one run is killed."""
    command = [sys.executable, "-m", "gnflow", "study", "work", "pipelines/tiny", "--slots", "2"]
    held = run / lock.NAME
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until(lambda: process.poll() is not None or (held.exists() and held.read_text()), seconds=240)
        if process.poll() is None:
            os.kill(int(held.read_text().split()[1]), signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def stages(text: str) -> dict[str, object]:
    found = YAML(typ="safe").load(text)["stages"]
    assert isinstance(found, dict)
    return found


def test_another_arm_leaves_the_stages_of_the_others_as_they_are(tmp_path: Path) -> None:
    folder = project(tmp_path)
    before = stages(pipeline.compose(load(folder)))
    (folder / "study.yaml").write_text(STUDY.replace("training.steps: 1", "training.steps: 3"))
    after = stages(pipeline.compose(load(folder)))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"trial_muon_1", "trial_muon_2"}  # which the choice and the runs depend on
    assert list(before) == [
        "trial_adamw_1", "trial_adamw_2", "choose_adamw", "run_adamw_seed_1", "run_adamw_seed_2",
        "trial_muon_1", "trial_muon_2", "choose_muon", "run_muon_seed_1", "run_muon_seed_2", "compare", "report",
    ]  # fmt: skip


def test_every_stage_begins_with_the_question_whether_gnflow_is_there(tmp_path: Path) -> None:
    commands = [stage["cmd"] for stage in stages(pipeline.compose(load(project(tmp_path)))).values()]  # type: ignore[index]
    assert commands
    assert all(command.startswith("${found} && gnflow ") for command in commands)


def test_a_pipeline_that_an_earlier_version_wrote_is_written_again(tmp_path: Path) -> None:
    design = load(project(tmp_path))
    body = pipeline.compose(design).partition("stages:\n")[2].replace("      ${found} &&\n", "")
    old = f"# Written by gnflow.\n{pipeline.CONTENT}{pipeline._compute_digest(body)}\nstages:\n{body}"
    (design.folder / "dvc.yaml").write_text(old)
    assert pipeline.write(design).read_text() == pipeline.compose(design)


def test_a_spec_of_another_name_is_chosen_for_again(tmp_path: Path) -> None:
    folder = project(tmp_path)
    before = stages(pipeline.compose(load(folder)))
    (tmp_path / "specs" / "muon.yaml").rename(tmp_path / "specs" / "other.yaml")
    (folder / "study.yaml").write_text(STUDY.replace("specs/muon.yaml", "specs/other.yaml"))
    after = stages(pipeline.compose(load(folder)))
    assert before["choose_muon"] != after["choose_muon"]
    assert before["choose_adamw"] == after["choose_adamw"]


def test_a_pipeline_that_is_stale_missing_or_edited_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path)
    with pytest.raises(SpecError, match=r"dvc\.yaml is missing\nrun: gnflow study pipeline pipelines/tiny"):
        pipeline.check(load(folder))
    path = pipeline.write(load(folder))
    assert pipeline.check(load(folder)) == path

    (folder / "study.yaml").write_text(STUDY.replace("trials: 2", "trials: 1"))
    with pytest.raises(SpecError, match=r"(?s)is not what study\.yaml says.*\n  - .*trial_adamw"):
        pipeline.check(load(folder))
    pipeline.write(load(folder))

    path.write_text(path.read_text().replace("persist: true", "persist: false", 1))
    with pytest.raises(SpecError, match=r"was edited by hand; first difference.*\n  - +persist: false"):
        pipeline.check(load(folder))
    with pytest.raises(SpecError, match="so it is not overwritten"):
        pipeline.write(load(folder))


def test_the_choice_needs_every_trial(tmp_path: Path) -> None:
    design = load(project(tmp_path))
    with pytest.raises(SpecError) as refused:
        choice.choose(design, design.find_arm("muon"))
    first, second, cure = str(refused.value).splitlines()
    assert first.startswith("trial_1 of `muon` has not run: ")
    assert second.startswith("trial_2 of `muon` has not run: ")
    pipeline = "pipelines/tiny/dvc.yaml"
    assert cure == f"run: gnflow init && dvc repro {pipeline}:trial_muon_1 {pipeline}:trial_muon_2"


def test_runs_that_diverge_are_results_and_there_is_no_choice_where_all_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, STUDY.replace("{low: 0.001, high: 0.1, scale: log}", "[1e30, 1e31]"))
    monkeypatch.chdir(tmp_path)
    design = load(tmp_path / "pipelines" / "tiny")
    for trial in design.find_arm("adamw").trials:
        directory = design.locate_run(design.find_arm("adamw"), trial.job)
        assert run_job(Path("specs/adamw.yaml"), sets=trial.job.sets, run_dir=directory) == 0
        assert json.loads((directory / "summary.json").read_text())["status"] == "diverged"
    with pytest.raises(SpecError, match=r"all 2 trials of arm `adamw` diverged.*\n.*`optimizer.learning_rate` smaller"):
        choice.choose(design, design.find_arm("adamw"))


@pytest.mark.parametrize("study", sorted(ROOT.glob("pipelines/*/study.yaml")), ids=lambda path: path.parent.name)
def test_the_pipeline_of_a_shipped_study_is_what_the_study_says(study: Path) -> None:
    pipeline.check(load(study.parent))


def test_a_study_from_nothing_to_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, ONCE)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    said = work_and_kill_one(tmp_path, tmp_path / "runs" / "tiny" / "adamw" / "trial_1")
    assert "trial_adamw_1: killed by signal 9; it is resumed (1 of at most 3)" in said
    assert "the study is done, and in dvc.lock: pipelines/tiny/report.html" in said
    comparison = json.loads((folder / "comparison.json").read_text())
    assert set(comparison["arms"]) == {"adamw", "muon"}
    assert [arm["trials"] for arm in comparison["arms"].values()] == [1, 1]
    assert "<svg" in (folder / "report.html").read_text()
    tuned = (folder / "tuned" / "muon.yaml").read_text()
    design = load(folder)
    best = choice.choose(design, design.find_arm("muon")).tried[0].trial
    assert f"learning_rate: {best.values['optimizer.learning_rate']}" in tuned
    assert "tuning:\n  trials: 1" in tuned
    assert plan_study(folder, json=True) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert total["done"] == total["trials"] + total["runs"] == 4

    assert "Running stage" not in call(tmp_path, "dvc", "repro", "pipelines/tiny/dvc.yaml")
    muon = tmp_path / "specs" / "muon.yaml"
    muon.write_text(muon.read_text().replace("kind: muon", "kind: muon, momentum: 0.9"))
    due = call(tmp_path, "dvc", "repro", "--dry", "pipelines/tiny/dvc.yaml")
    assert set(re.findall(r"Running stage '[^']*?(\w+)'", due)) == {"trial_muon_1", "choose_muon", "run_muon_seed_1"}
