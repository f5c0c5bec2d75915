"""`gnflow new`: what it writes can be run, and what it says next can be done."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import tiny

from gnflow.commands.check import check
from gnflow.commands.compare import compare
from gnflow.commands.new import Refusal, write_spec
from gnflow.commands.new_study import write_study
from gnflow.commands.plan import plan
from gnflow.commands.run import run
from gnflow.data.sources import shakespeare
from gnflow.errors import SpecError
from gnflow.spec.explain import explain_all
from gnflow.spec.load import load
from gnflow.spec.scaffold import list_kinds
from gnflow.study.design.load import load as load_study
from gnflow.train.run import Run

ROOT = Path(__file__).parents[2]
SMALL = ("model.layers=1", "model.width=16", "model.heads=2", "training.rows=2", "training.steps=2", "compile.mode=off")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.write_project(tmp_path))
    return tmp_path


def commands(out: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in out.splitlines() if line.startswith("  gnflow ")]


@pytest.mark.parametrize("kind", list_kinds())
def test_every_optimizer_has_a_spec_that_says_everything_about_it(project: Path, kind: str, capsys) -> None:
    assert write_spec("my_idea", optimizer=kind) == 0
    assert check([Path("my_idea.yaml")], sets=(), json=False) == 0
    assert plan(Path("my_idea.yaml"), sets=(), json=True) == 0
    loaded = load("my_idea.yaml")
    assert loaded.experiment.optimizer.kind == kind
    lines = (project / "my_idea.yaml").read_text().splitlines()
    for row in explain_all(loaded):
        if row.path[0] == "optimizer" and row.single:
            assert row.origin.kind == "file", row.key
            above = " ".join(line.strip(" #") for line in lines[max(row.origin.line - 4, 0) : row.origin.line - 1])
            assert row.path[-1] == "kind" or " ".join(row.help.split()[-3:]) in above, row.key
    assert max(map(len, lines)) <= 120


def test_it_sets_the_task_of_the_shipped_specs(project: Path) -> None:
    write_spec("my_idea")
    ours, theirs = load("my_idea.yaml").experiment, load(ROOT / "specs" / "full_gn.yaml").experiment
    assert (ours.model, ours.data, ours.optimizer.kind) == (theirs.model, theirs.data, theirs.optimizer.kind)
    for part in ("rows", "start", "target"):
        assert getattr(ours.training, part) == getattr(theirs.training, part)


def test_what_it_wrote_runs(project: Path) -> None:
    write_spec("my_idea", optimizer="soap")
    small = [*SMALL, "data.source={kind: files, paths: [text.txt]}", "data.tokenizer=bytes", "tracking=none"]
    assert run(Path("my_idea.yaml"), sets=[*small, "data.context=16", "training.start=scratch"]) == 0
    assert Run.load(project / "runs" / "my_idea").summary["steps"] == 2


def test_the_next_commands_lead_to_a_comparison(project: Path, capsys) -> None:
    """Every one of them is carried out, on a smaller task."""
    (project / "specs").mkdir()
    shutil.copy(ROOT / "specs" / "schema.json", project / "specs")
    write_spec("my_idea", optimizer="muon")
    own, other, last = commands(capsys.readouterr().out)
    assert own == ["gnflow", "run", "specs/my_idea.yaml"]
    assert other == [
        "gnflow", "new", "my_idea_adamw", "--optimizer", "adamw", "&&", "gnflow", "run", "specs/my_idea_adamw.yaml",
    ]  # fmt: skip
    assert last == ["gnflow", "compare", "runs/my_idea", "runs/my_idea_adamw"]
    write_spec(other[2], optimizer=other[4])
    small = [*SMALL, "data.source={kind: files, paths: [text.txt]}", "data.tokenizer=bytes", "data.context=16"]
    for spec in (own[2], other[8]):
        run(Path(spec), sets=[*small, "tracking=none", "training.target.at_most=5.9"])
    capsys.readouterr()
    assert compare([Path(last[2]), Path(last[3])], targets=(), reference=None, json=False) == 0
    assert "my_idea_adamw" in capsys.readouterr().out
    assert (project / "specs" / "my_idea.yaml").read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_a_finished_run_of_the_same_task_is_what_to_compare_with(project: Path, capsys) -> None:
    write_spec("full_gn")
    for name, sets in (("full_gn", ""), ("elsewhere", "model:\n  layers: 2\n"), ("killed", "")):
        (project / "runs" / name).mkdir(parents=True)
        (project / "runs" / name / "experiment.yaml").write_text(f"extends: ../../full_gn.yaml\n{sets}")
        (project / "runs" / name / "summary.json").write_text(
            json.dumps({"status": "preempted" if name == "killed" else "complete"})
        )
    capsys.readouterr()
    write_spec("my_idea")
    assert [command[1:] for command in commands(capsys.readouterr().out)] == [
        ["plan", "my_idea.yaml"], ["run", "my_idea.yaml"], ["compare", "runs/my_idea", "runs/full_gn"],
    ]  # fmt: skip


def test_another_spec_is_the_base(project: Path, capsys) -> None:
    write_spec("first", optimizer="muon")
    (project / "first.yaml").write_text((project / "first.yaml").read_text().replace("momentum: 0.95", "momentum: 0.5"))
    (project / "specs").mkdir()
    capsys.readouterr()
    write_spec("second", base=Path("first.yaml"))
    first, second = (load(path).experiment for path in ("first.yaml", "specs/second.yaml"))
    assert second == first.model_copy(update={"name": "second"})
    assert [command[1:] for command in commands(capsys.readouterr().out)] == [
        ["run", "specs/second.yaml"], ["run", "first.yaml"], ["compare", "runs/second", "runs/first"],
    ]  # fmt: skip
    write_spec("third", optimizer="gauss_newton", base=Path("first.yaml"))
    third = load("specs/third.yaml").experiment
    assert (third.optimizer.kind, third.training.steps, third.model) == ("gauss_newton", 14, first.model)


def test_what_cannot_be_made_is_refused_and_nothing_is_overwritten(project: Path, tmp_path_factory) -> None:
    (project / "mine.yaml").write_text("mine")
    with pytest.raises(Refusal, match=r"mine\.yaml exists already"):
        write_spec("mine.yaml")
    assert (project / "mine.yaml").read_text() == "mine"
    with pytest.raises(Refusal, match="no optimizer `moun`; did you mean `muon`"):
        write_spec("x", optimizer="moun")
    with pytest.raises(Refusal, match=r"`\.\./x` cannot name a run: expected at most 100 letters"):
        write_spec("../x")
    outside = shutil.copy(ROOT / "specs" / "common" / "shakespeare.yaml", tmp_path_factory.mktemp("elsewhere"))
    Path(outside).write_text(Path(outside).read_text() + "  steps: 3\nname: outside\noptimizer: adamw\n")
    for base in (Path("mine.yaml"), Path(outside)):
        with pytest.raises(SpecError):
            write_spec("x", base=base)
    assert sorted(path.name for path in project.iterdir()) == ["dvc.yaml", "mine.yaml", "text.txt"]


def test_a_study_compares_two_named_methods_on_a_text_of_the_user(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_study("mine", optimizer="lion", against="muon", text=["text.txt"]) == 0
    design = load_study(project / "pipelines" / "mine")
    assert set(design.study.arms) == {"lion", "muon"}
    assert design.study.budget is not None
    for arm in ("lion", "muon"):
        source = load(project / "pipelines" / "mine" / f"{arm}.yaml").experiment.data.model_dump()["source"]
        assert (source["paths"], source["held_out_fraction"]) == (("text.txt",), 0.1)
    assert "  gnflow init " in capsys.readouterr().out
    with pytest.raises(Refusal, match="both methods are `muon`"):
        write_study("other", optimizer="muon", against="muon")
    assert write_spec("plain", text=["text.txt"]) == 0
    assert load("plain.yaml").experiment.data.model_dump()["source"]["paths"] == ("text.txt",)


def test_outside_a_project_it_says_where_runs_will_be(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_spec("my_idea")
    assert f"runs/ and data/ will be in {tmp_path}. `gnflow init` makes a project" in capsys.readouterr().out


def test_without_the_plays_it_offers_text_that_is_here_and_that_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shakespeare, "VERSION", "0")  # no wheel of this version is installed
    assert write_spec("my_idea", optimizer="adamw") == 0
    assert "ready to run\n" in capsys.readouterr().out
    assert load("my_idea.yaml").experiment.data.source.kind == "package"
    assert check([Path("my_idea.yaml")], json=False) == 0
    assert capsys.readouterr().out == "my_idea.yaml: ok\n"
    small = [*SMALL, "data.source.paths=[numpy/polynomial/*.py]", "data.source.held_out=[numpy/linalg/*.py]"]
    small += ["data.tokenizer=bytes", "data.context=16", "training.start=scratch", "tracking=none"]
    assert run(Path("my_idea.yaml"), sets=small) == 0


def test_what_is_not_ready_to_run_is_not_called_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "base.yaml").write_text(
        "name: base\ndata: {source: {kind: files, paths: [gone.txt]}}\noptimizer: adamw\ntraining: {steps: 3}\n"
    )
    assert write_spec("my_idea", base=Path("base.yaml")) == 0
    out = capsys.readouterr().out
    assert "not ready to run yet\n  missing for a run: data.source.paths: there is no file `gone.txt`" in out
