"""A file that is no spec is named in one sentence, with the command that takes it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gnflow.spec.load import load
from gnflow.spec.problems import SpecProblems
from gnflow.spec.recognition import recognize
from gnflow.study.design.load import load as load_study
from gnflow.study.find import NoRun, find

SPEC = "name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n"
FILES = {
    "specs/a.yaml": SPEC,
    "specs/over.yaml": "extends: a.yaml\nname: over\n",
    "pipelines/s/study.yaml": "name: s\narms: {a: ../../specs/a.yaml}\nseeds: [1]\ntargets: [3.0]\n",
    "pipelines/s/dvc.yaml": "stages: {}\n",
    "pipelines/s/dvc.lock": "schema: '2.0'\nstages: {}\n",
    "pipelines/s/comparison.json": '{"name": "s", "seeds": [1], "targets": [3.0], "arms": {}}',
    "pipelines/s/report.html": "<!DOCTYPE html>\n<html>",
    "pipelines/s/widened.yaml": "arms: {}\n",
    "runs/a/experiment.yaml": SPEC,
    "runs/a/summary.json": '{"status": "complete"}',
    "runs/a/journal.jsonl": '{"kind": "step"}\n{"kind": "step"}\n',
    "runs/a/model/params.safetensors": "\x00",
    "models/small/config.json": '{"model_type": "llama"}',
    "data/text/manifest.json": '{"data": {}, "files": {}}',
    "data/text/train.npy": "\x93NUMPY",
    "config.py": "n_layer = 2\n",
}
KNOWN = {
    "pipelines/s/study.yaml": "a study, not a spec; `gnflow check pipelines/s` checks it, `gnflow study plan",
    "pipelines/s": "a study",
    "pipelines": "a folder of studies, not a spec; give a study in it, such as pipelines/s",
    "pipelines/s/dvc.yaml": "a pipeline of DVC, not a spec; `dvc repro pipelines/s/dvc.yaml` runs it",
    "pipelines/s/dvc.lock": "the lock file of DVC",
    "pipelines/s/comparison.json": "a file of a study",
    "pipelines/s/report.html": "a web page, not a spec; open it in a browser",
    "pipelines/s/widened.yaml": "the list of trials that were added to a study",
    "runs/a": "a run, not a spec; `gnflow show runs/a` shows the run, and its spec is runs/a/exp",
    "runs": "a folder of runs, not a spec; give a run in it, such as runs/a",
    "runs/a/summary.json": "a file of the run runs/a, not a spec; `gnflow show runs/a` shows",
    "runs/a/journal.jsonl": "a file of the run runs/a",
    "runs/a/model/params.safetensors": "a file of the run runs/a",
    "models/small": "a model of transformers, not a spec; a spec trains it with",
    "models/small/config.json": "a file of a model of transformers",
    "data/text": "prepared data",
    "data/text/train.npy": "a file of prepared data",
    "config.py": "a Python program, not a spec; `gnflow new NAME --like nanogpt config.py`",
}


@pytest.fixture
def files(project: Path) -> Path:
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="latin-1")
    return project


def say(read: Callable[[Path], object], path: str) -> str:
    with pytest.raises(SpecProblems) as raised:
        read(Path(path))
    (problem,) = raised.value.problems
    return f"{problem.origin}: {problem.sentence}"


@pytest.mark.parametrize("path", KNOWN)
def test_what_is_no_spec_is_named_with_its_command(files: Path, path: str) -> None:
    assert say(load, path).startswith(f"{path}: this is {KNOWN[path]}")


def test_a_spec_is_one_wherever_it_is(files: Path) -> None:
    assert load(Path("specs/over.yaml")).experiment.name == "over"
    for place in ("pipelines/s/mine.yaml", "pipelines/s/mine.json", "runs/a/mine"):
        (files / place).write_text(SPEC)
        assert load(Path(place)).experiment.name == "a"


def test_a_base_and_an_arm_are_recognised_too(files: Path) -> None:
    (files / "specs/b.yaml").write_text("extends: ../pipelines/s/study.yaml\n")
    with pytest.raises(SpecProblems, match="this is a study, not a spec"):
        load(Path("specs/b.yaml"))
    study = files / "pipelines/s/study.yaml"
    study.write_text(study.read_text().replace("../../specs/a.yaml", "study.yaml"))
    with pytest.raises(SpecProblems, match="this is a study, not a spec"):
        load_study(Path("pipelines/s"))


@pytest.mark.parametrize(
    ("path", "what"),
    {
        "specs/a.yaml": "a spec, not a study; `gnflow plan specs/a.yaml` shows what its run does and costs",
        "specs/over.yaml": "a spec, not a study",
        "pipelines": "a folder of studies, not a study; give a study in it, such as pipelines/s",
        "runs/a": "a run, not a study; `gnflow show runs/a` shows",
        "pipelines/s/dvc.yaml": "a pipeline of DVC, not a study",
        "pipelines/s/comparison.json": "a file of a study, not a study; `gnflow check pipelines/s` checks it",
    }.items(),
)
def test_what_is_no_study_is_named_with_its_command(files: Path, path: str, what: str) -> None:
    assert say(load_study, path).startswith(f"{path}: this is {what}")


@pytest.mark.parametrize("path", ["specs/a.yaml", "pipelines/s", "runs", "runs/a/summary.json", "models/small"])
def test_what_is_no_run_is_named_with_its_command(files: Path, path: str) -> None:
    known = recognize(Path(path))
    assert known is not None
    with pytest.raises(NoRun) as raised:
        find(Path(path))
    assert str(raised.value) == f"there is no run `{path}`: this is {known.what}; {known.advice}"


def test_what_nothing_tells_is_not_guessed(files: Path) -> None:
    for name, text in {
        "text.txt": "Once upon a time.",
        "a/b.yaml": "x: 1",
        "list.json": "[1]",
        "bad.yaml": "a: [",
    }.items():
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text(text)
        assert recognize(Path(name)) is None
    assert recognize(Path("gone")) is None
    assert recognize(files) is None
