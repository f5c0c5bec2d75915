import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from studies import project

from gnflow.commands.init import make_project
from gnflow.commands.study import plan_study, write_pipeline
from gnflow.errors import EnvironmentProblem, SpecError


def gnflow(folder: Path, *command: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}" if path is None else path
    whole = [sys.executable, "-m", "gnflow", *command]
    environment = {**os.environ, "PATH": programs}
    return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def outside_git(root: Path) -> Path:
    """The folder of a study in a directory that is no repository."""
    folder = project(root)
    shutil.rmtree(root / ".git")
    return folder


def test_a_study_outside_git_names_the_command_that_makes_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    folder = outside_git(root)
    with pytest.raises(
        SpecError, match=r"outside the project.*run `gnflow init` in the folder that is to be the project"
    ):
        plan_study(folder, json=False)
    (root / "dvc.yaml").write_text("stages: {}\n")  # a project, and no repository
    plan_study(folder, json=False)
    assert f"needs a Git and DVC repository, which {root} is not yet" in capsys.readouterr().out
    write_pipeline(folder, check=False)
    assert "next: gnflow init && dvc repro pipelines/tiny/dvc.yaml" in capsys.readouterr().out

    monkeypatch.chdir(root)
    assert make_project() == 0
    capsys.readouterr()
    plan_study(folder, json=False)
    assert "gnflow init" not in capsys.readouterr().out
    write_pipeline(folder, check=False)
    assert "next: dvc repro pipelines/tiny/dvc.yaml" in capsys.readouterr().out


def test_after_init_the_next_command_that_is_named_works(tmp_path: Path) -> None:
    folder = outside_git(tmp_path)
    assert gnflow(tmp_path, "init").returncode == 0
    written = gnflow(tmp_path, "study", "pipeline", str(folder))
    [command] = [line.removeprefix("next: ") for line in written.stdout.splitlines() if line.startswith("next: ")]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    first = [*f"{command}:trial_adamw_1".split(), "--dry"]
    done = subprocess.run(first, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage 'pipelines/tiny/dvc.yaml:trial_adamw_1'" in done.stdout


def test_it_says_what_it_did_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    first = gnflow(tmp_path, "init")
    assert first.returncode == 0
    assert first.stdout.splitlines() == [
        f"the project: {tmp_path}",
        "git: initialized a repository",
        ".gitignore: added /runs/, /data/, /mlflow/, /.gnflow/",
        "dvc: initialized a repository, without usage reports",
    ]
    assert "analytics = false" in (tmp_path / ".dvc" / "config").read_text()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    second = gnflow(tmp_path, "init")
    assert (second.returncode, second.stdout.count("already")) == (0, 3)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("secrets\ndata\n/runs/")
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path / "specs")
    assert make_project() == 0
    assert (tmp_path / ".gitignore").read_text() == "secrets\ndata\n/runs/\n/mlflow/\n/.gnflow/\n"
    assert (tmp_path / ".dvc").is_dir()
    assert not list((tmp_path / "specs").iterdir())


def test_a_project_below_a_repository_gets_a_dvc_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    below = tmp_path / "below"
    below.mkdir()
    (below / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(below)
    assert make_project() == 0
    assert (below / ".dvc").is_dir()
    assert not (below / ".git").exists()


def test_without_git_it_says_so(tmp_path: Path) -> None:
    done = gnflow(tmp_path, "init", path=str(tmp_path))
    assert done.returncode == EnvironmentProblem.exit_code
    assert done.stderr.startswith("`git init --quiet` cannot be called")
    assert "install git, then run `gnflow init` again" in done.stderr
