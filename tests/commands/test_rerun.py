"""`gnflow rerun` on real runs of a second, some of them tampered with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

from gnflow.commands.rerun import rerun
from gnflow.errors import DataError, Diverged, SpecError
from gnflow.spec.load import format_resolved
from gnflow.train import checkpoint
from gnflow.train.loop import run
from gnflow.workspace import Workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run."""
    root = tiny.write_project(tmp_path_factory.mktemp("project"))
    run(tiny.experiment("gauss_newton"), Workspace(root))
    return root


@pytest.fixture
def directory(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, to be tampered with."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project" / "runs" / "tiny"


def change(directory: Path, step: int, column: str, value: Callable[[float], float]) -> None:
    """Another value in the journal."""
    lines = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    lines[step]["values"][column] = value(lines[step]["values"][column])
    (directory / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.parent.iterdir())


def as_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    rerun(directory, json=True)
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_agrees_with_itself_and_leaves_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerun(Path("tiny")) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("tiny agrees bit for bit over 6 steps, weights of step 6 identical")
    assert "warning" not in out
    assert names(directory) == ["tiny"]


def test_a_difference_as_small_as_rounding_is_told_and_accepted(directory: Path, capsys) -> None:
    change(directory, 3, "loss/train", lambda value: value * (1 + 1e-5))
    assert rerun(directory) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert "agrees within rounding over 6 steps (largest relative difference " in verdict
    assert "e-06 at step 3, loss/train, 0.001 allowed" in verdict
    assert "identical bits were expected" in verdict


def test_a_larger_one_is_a_disagreement_from_that_step_on(directory: Path, capsys) -> None:
    change(directory, 5, "loss/held_out", lambda value: 7.0)
    change(directory, 4, "gn/alpha", lambda value: 0.125)
    assert rerun(directory) == 1
    verdict, kept = capsys.readouterr().out.splitlines()[-2:]
    assert "disagrees from step 4 on: gn/alpha was 0.125, is " in verdict
    place = Path(kept.removeprefix("the repetition is in "))
    assert place.parent == directory.parent
    assert (place / "summary.json").is_file()


def test_seconds_are_not_compared_and_counts_have_to_be_equal(directory: Path, capsys) -> None:
    for clock in ("time/seconds", "time/wall", "time/compile"):
        change(directory, 2, clock, lambda value: value + 100)
    assert rerun(directory) == 0
    change(directory, 2, "tokens/total", lambda value: value + 1)
    found = as_json(directory, capsys)
    assert (found["verdict"], found["first"]["column"], found["first"]["relative"]) == (
        "different",
        "tokens/total",
        None,
    )


def test_weights_that_are_not_those_of_the_records_disagree(directory: Path, capsys) -> None:
    for place in ("model", "checkpoints/step_00000006"):
        file = directory / place / "params.safetensors"
        tensors = load_file(file)
        tensors["embedding.weight"] = tensors["embedding.weight"] * 1.5
        save_file(tensors, file)
        rest = [path.name for path in file.parent.iterdir() if path.name != "manifest.json"]
        checkpoint.seal(file.parent, *rest)
    assert rerun(directory) == 1
    assert "disagrees: every record is the same, weights of step 6 differ by 3.3e-01" in capsys.readouterr().out


def test_what_has_changed_since_is_said_before_and_in_the_verdict(directory: Path, capsys) -> None:
    provenance = json.loads((directory / "provenance.json").read_text())
    provenance["sessions"][0]["threads"] = 64
    provenance["sessions"][0]["versions"] |= {"torch": "1.0", "mlflow": "0.1"}
    provenance["digests"] |= {"spec": "e" * 64, "data": "f" * 64}
    provenance["git"] = {"commit": "abcdef0123456", "dirty": True, "diff": "+1"}
    (directory / "provenance.json").write_text(json.dumps(provenance))
    change(directory, 6, "norm/update", lambda value: value * (1 + 1e-5))
    assert rerun(directory) == 0
    lines = capsys.readouterr().out.splitlines()
    warned = [line.removeprefix("warning: ").split(" was ")[0] for line in lines if line.startswith("warning: ")]
    assert warned == ["torch", "threads", "commit", "data", "spec"]
    assert f"identical bits were not expected ({', '.join(warned)} changed)" in lines[-1]
    changed = as_json(directory, capsys)["changed"]
    assert changed["threads"]["there"] == "64"
    assert changed["data"]["there"] == "f" * 12
    assert changed["commit"]["there"].startswith("abcdef012345 with changes ")


def test_an_unfinished_run_is_repeated_as_far_as_it_went(directory: Path, capsys) -> None:
    for name in ("checkpoints/step_00000006", "checkpoints/step_00000004", "model"):
        shutil.rmtree(directory / name)
    (directory / "summary.json").unlink()
    lines = (directory / "journal.jsonl").read_text().splitlines(keepends=True)
    (directory / "journal.jsonl").write_text("".join(lines[:4]))
    assert rerun(directory, keep=directory.parent / "again") == 0
    assert "agrees bit for bit over 3 steps, weights of step 2 identical" in capsys.readouterr().out
    assert len((directory.parent / "again" / "journal.jsonl").read_text().splitlines()) == 4


def test_a_run_that_diverged_diverges_again(directory: Path, capsys) -> None:
    tree = tiny.tiny("adamw", name="hot")
    spec = tiny.experiment().model_validate(tree | {"optimizer": {"kind": "adamw", "learning_rate": 1e30}})
    with pytest.raises(Diverged):
        run(spec, Workspace(directory.parents[1]))
    assert rerun(Path("hot")) == 0
    assert "hot agrees bit for bit over " in capsys.readouterr().out


def test_a_run_copied_out_of_its_project_is_repeated_in_this_one(directory: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "post").mkdir()
    shutil.move(directory, tmp_path / "post" / "tiny")
    assert rerun(tmp_path / "post" / "tiny") == 0
    assert [path.name for path in (tmp_path / "post").iterdir()] == ["tiny"]
    assert "data" not in names(tmp_path / "post" / "tiny" / "model")
    assert "agrees bit for bit" in capsys.readouterr().out


def test_what_cannot_be_repeated_is_refused_and_leaves_nothing(directory: Path) -> None:
    with pytest.raises(SpecError, match="exists already; give --keep a new directory"):
        rerun(directory, keep=directory)
    root = directory.parents[1]
    (root / "text.txt").unlink()
    shutil.rmtree(root / "data")
    with pytest.raises(DataError):
        rerun(directory)
    (directory / "journal.jsonl").write_text("")
    with pytest.raises(SpecError, match="has recorded no step"):
        rerun(directory)
    assert names(directory) == ["tiny"]


def test_a_repetition_that_is_interrupted_leaves_nothing(directory: Path) -> None:
    spec = tiny.experiment("gauss_newton", steps=100_000, target={"at_most": 0.0})
    shutil.rmtree(directory / "checkpoints")
    (directory / "summary.json").unlink()
    (directory / "experiment.yaml").write_text(format_resolved(spec))
    lines = (directory / "journal.jsonl").read_text().splitlines()
    record = json.dumps(json.loads(lines[-1]) | {"step": 100_000})
    (directory / "journal.jsonl").write_text("\n".join([*lines, record, ""]))
    command = [sys.executable, "-m", "gnflow", "rerun", "tiny"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    until = time.monotonic() + 60
    while not [path for path in directory.parent.glob(".rerun_tiny_*/journal.jsonl") if path.stat().st_size]:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert names(directory) == ["tiny"]
