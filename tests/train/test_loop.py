import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars
import pytest
import tiny
import torch
from safetensors.torch import load_file

from gnflow.compiler.plan import Plan
from gnflow.errors import DataError, DiskProblem, EnvironmentProblem, SpecError
from gnflow.train import lock
from gnflow.train.directory import set_aside
from gnflow.train.journal import Record, Step, compute_identity, read
from gnflow.train.loop import run
from gnflow.train.run import Run
from gnflow.workspace import Workspace


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def go(root: Path, said: list[str] | None = None, fresh: bool = False, **training: object) -> Run:
    report = (lambda line: None) if said is None else said.append
    return run(tiny.experiment(**training), Workspace(root), fresh=fresh, report=report)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }  # fmt: skip


def test_a_run_leaves_everything_the_design_names(finished: Path) -> None:
    directory = finished / "runs" / "tiny"
    assert sorted(path.name for path in directory.iterdir() if path.name != ".lock") == [
        "checkpoints", "experiment.yaml", "journal.jsonl", "metrics.parquet", "model", "plan.json", "provenance.json",
        "summary.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == [
        "step_00000002", "step_00000004", "step_00000006",
    ]  # fmt: skip
    assert sorted(path.name for path in (directory / "model").iterdir()) == [
        "experiment.yaml", "manifest.json", "params.safetensors",
    ]  # fmt: skip


def test_dear_evaluation_is_said_once_and_null_chooses_a_cheaper_one(tmp_path: Path) -> None:
    root, said = tiny.write_project(tmp_path / "project"), list[str]()
    go(root, said, steps=40)
    dear = [line for line in said if line.startswith("evaluation takes ")]
    assert len(dear) == 1
    assert "since it comes after every step; `training.evaluate_every: 3` would make it about a tenth" in dear[0]
    said.clear()
    cheap = go(root, said, fresh=True, steps=40, evaluate_every=None)
    assert not [line for line in said if line.startswith("evaluation takes ")]
    assert cheap.metrics.drop_nulls("loss/held_out")["step"].to_list() == [*range(0, 40, 3), 40]
    assert cheap.plan["evaluation"]["every"] == 3  # type: ignore[index]


def test_a_run_records_its_own_processor_time_and_that_of_all_others(finished: Path) -> None:
    found = Run.load(finished / "runs" / "tiny")
    own = found.metrics["time/cpu"].to_list()
    assert own == sorted(own)
    assert found.summary["time/cpu"] == own[-1] > 0
    others = found.metrics["time/others"].drop_nulls().to_list()
    assert found.summary["time/others"] == others[-1] > -1
    [session] = json.loads((found.directory / "provenance.json").read_text())["sessions"]
    assert session["available"] == len(os.sched_getaffinity(0))


def test_run_reads_back_what_was_written(finished: Path) -> None:
    found = Run.load(finished / "runs" / "tiny")
    assert found.experiment == tiny.experiment()
    assert found.plan["steps"] == 6
    assert found.summary["status"] == "complete"
    assert found.summary["run/id"] == compute_identity(
        (found.directory / "journal.jsonl").read_bytes().splitlines(True)[0]
    )
    assert found.metrics["step"].to_list() == list(range(7))
    assert found.metrics.equals(polars.read_parquet(found.directory / "metrics.parquet"))
    assert found.summary["loss/held_out"] == found.metrics["loss/held_out"][-1]
    losses = found.metrics["loss/held_out"]
    assert losses[6] < losses[0]


def test_the_model_is_the_last_checkpoint(finished: Path) -> None:
    directory = finished / "runs" / "tiny"
    final = load_file(directory / "model" / "params.safetensors")
    last = load_file(directory / "checkpoints" / "step_00000006" / "params.safetensors")
    assert final.keys() == last.keys()
    assert all(torch.equal(final[name], last[name]) for name in final)
    assert (directory / "model/experiment.yaml").read_bytes() == (directory / "experiment.yaml").read_bytes()


def test_a_finished_run_says_so_and_is_left_alone(project: Path) -> None:
    before = contents(project / "runs")
    said: list[str] = []
    assert go(project, said).summary["status"] == "complete"
    assert len(said) == 1
    assert said[0].endswith("runs/tiny is finished; --fresh would run it again")
    assert contents(project / "runs") == before


@pytest.mark.parametrize(
    "removed",
    [
        ["summary.json"],
        ["metrics.parquet"],
        ["model"],
        ["model/manifest.json"],
        ["summary.json", "metrics.parquet", "model"],
    ],
)
def test_what_a_finished_run_lacks_is_written_again_without_training(project: Path, removed: list[str]) -> None:
    directory = project / "runs" / "tiny"
    before = contents(directory)
    for name in removed:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(project / "data")
    (project / "text.txt").unlink()
    go(project)
    assert contents(directory) == before


def test_damaged_final_weights_are_written_again(project: Path) -> None:
    directory = project / "runs" / "tiny"
    before = contents(directory)
    os.truncate(directory / "model" / "params.safetensors", 50)
    go(project)
    assert contents(directory) == before


def test_a_killed_end_is_made_up_for(project: Path) -> None:
    """After the last checkpoint, before anything else."""
    directory = project / "runs" / "tiny"
    before = contents(directory)
    for name in ("summary.json", "metrics.parquet"):
        (directory / name).unlink()
    (directory / "model").rename(directory / ".partial_model")
    go(project)
    assert contents(directory) == before


def test_another_spec_is_refused_key_by_key_and_nothing_is_touched(project: Path) -> None:
    before = contents(project / "runs")
    with pytest.raises(SpecError) as raised:
        go(project, steps=9, target={"at_most": 2.5})
    lines = [" ".join(line.split()) for line in str(raised.value).splitlines()]
    assert lines[0].endswith("runs/tiny holds a run of another spec (there -> now):")
    assert "training.steps 6 -> 9" in lines
    assert "training.target null -> -" in lines
    assert "training.target.at_most - -> 2.5" in lines
    assert "--fresh" in lines[-1]
    assert contents(project / "runs") == before


def test_a_finished_run_from_before_a_key_existed_is_finished_still(project: Path) -> None:
    spec = project / "runs" / "tiny" / "experiment.yaml"
    lines = spec.read_text().splitlines(keepends=True)
    old = [line for line in lines if line.strip().partition(":")[0] not in ("on_nonfinite", "spike", "max_undone")]
    assert len(old) == len(lines) - 3
    spec.write_text("".join(old))
    said: list[str] = []
    go(project, said)
    assert said[0].endswith("runs/tiny is finished; --fresh would run it again")


def test_fresh_deletes_the_run_and_nothing_else(project: Path) -> None:
    directory = project / "runs" / "tiny"
    (directory / "notes.md").write_text("mine")
    first = read(directory / "journal.jsonl").records[0]
    done = go(project, fresh=True, steps=3)
    assert done.summary["steps"] == 3
    assert (directory / "notes.md").read_text() == "mine"
    assert read(directory / "journal.jsonl").records[0].time > first.time
    assert list(done.metrics["step"]) == [0, 1, 2, 3]
    assert not (directory / "checkpoints" / "step_00000006").exists()


def test_superseding_moves_a_run_of_another_spec_aside_whole(project: Path) -> None:
    directory, before = project / "runs" / "tiny", contents(project / "runs" / "tiny")
    said: list[str] = []
    done = run(tiny.experiment(steps=3), Workspace(project), supersede=True, report=said.append)
    assert done.summary["steps"] == 3
    (aside,) = (project / "runs" / ".superseded").iterdir()
    assert str(aside) in said[0]
    assert contents(aside) == {name: content for name, content in before.items() if name != ".lock"}
    assert Run.load(aside).summary["steps"] == 6

    run(tiny.experiment(), Workspace(project), supersede=True)
    run(tiny.experiment(steps=3), Workspace(project), supersede=True)
    assert len(list((project / "runs" / ".superseded").iterdir())) == 3
    assert Run.load(directory).summary["steps"] == 3


def test_superseding_resumes_a_run_of_the_same_spec(project: Path) -> None:
    unfinish(project / "runs" / "tiny")
    before = read(project / "runs" / "tiny" / "journal.jsonl").records
    run(tiny.experiment(), Workspace(project), supersede=True)
    assert not (project / "runs" / ".superseded").exists()
    assert read(project / "runs" / "tiny" / "journal.jsonl").records[: len(before)] == before


def test_a_move_aside_that_was_cut_short_goes_on_into_the_same_place(project: Path) -> None:
    directory = project / "runs" / "tiny"
    before = contents(directory)
    aside = set_aside(directory)
    assert aside is not None
    for name in ("experiment.yaml", "journal.jsonl"):  # the last two of a move in its order would be these
        (aside / name).replace(directory / name)
    assert set_aside(directory) == aside
    assert contents(aside) == {name: content for name, content in before.items() if name != ".lock"}


def test_a_key_that_a_later_version_added_is_no_difference(project: Path) -> None:
    spec = project / "runs" / "tiny" / "experiment.yaml"
    text = spec.read_text()
    assert "tuning:" in text
    spec.write_text(text[: text.index("tuning:")])
    said: list[str] = []
    go(project, said)
    assert "is finished" in said[0]


def test_fresh_deletes_nothing_when_the_new_plan_is_not_valid(project: Path) -> None:
    before = contents(project / "runs")
    experiment = tiny.experiment()
    optimizer = experiment.optimizer.model_copy(
        update={"rules": tiny.experiment("muon").optimizer.model_validate(
            {"kind": "muon", "rules": [{"match": "nowhere", "use": "adamw"}]}
        ).rules}
    )  # fmt: skip
    with pytest.raises(SpecError, match="owns no parameter"):
        run(experiment.model_copy(update={"optimizer": optimizer}), Workspace(project), fresh=True)
    assert contents(project / "runs") == before


def test_a_directory_with_something_else_is_refused_even_with_fresh(project: Path) -> None:
    (project / "home").mkdir()
    (project / "home" / "thesis.tex").write_text("")
    for fresh in (False, True):
        with pytest.raises(SpecError, match="is not empty and holds no run"):
            run(tiny.experiment(), Workspace(project), project / "home", fresh=fresh)
    assert [path.name for path in (project / "home").iterdir()] == ["thesis.tex"]


def test_two_processes_never_run_in_one_directory(project: Path) -> None:
    (project / "runs/tiny/summary.json").unlink()
    with lock.hold(project / "runs" / "tiny"), pytest.raises(EnvironmentProblem, match=f"pid {os.getpid()}"):
        go(project)


def unfinish(directory: Path) -> None:
    """As if killed between steps 5 and 6."""
    for name in ("checkpoints/step_00000006", "model"):
        shutil.rmtree(directory / name)
    (directory / "summary.json").unlink()
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "journal.jsonl").write_bytes(b"".join(lines[:-1]))


def test_changed_data_under_a_run_is_an_error(project: Path) -> None:
    unfinish(project / "runs" / "tiny")
    (project / "text.txt").write_text((project / "text.txt").read_text().replace("fox", "cat"))
    shutil.rmtree(project / "data")
    with pytest.raises(DataError, match="changed since this run began"):
        go(project)


def test_a_damaged_checkpoint_is_named_to_the_user_and_in_the_journal(project: Path, finished: Path) -> None:
    directory = project / "runs" / "tiny"
    unfinish(directory)
    os.truncate(directory / "checkpoints/step_00000004/params.safetensors", 99)
    said: list[str] = []
    go(project, said)
    assert [line for line in said if "step_00000004 is not used: params.safetensors has 99 bytes" in line]
    reading = read(directory / "journal.jsonl")
    assert [(event.step, event.name) for event in reading.events] == [(4, "damaged")]
    for name in ("params", "optimizer"):
        path = Path(f"runs/tiny/checkpoints/step_00000006/{name}.safetensors")
        assert (project / path).read_bytes() == (finished / path).read_bytes()


def test_a_damaged_journal_line_is_computed_again(project: Path, finished: Path) -> None:
    journal = project / "runs/tiny/journal.jsonl"
    unfinish(project / "runs" / "tiny")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b'{"kind": "st\n', *lines[4:]]))
    said: list[str] = []
    go(project, said)
    assert [line for line in said if line.startswith("warning: line 4 of ")]
    ours, theirs = (Run.load(root / "runs" / "tiny").metrics for root in (project, finished))
    assert ours.select(polars.exclude("^time/.*$")).equals(theirs.select(polars.exclude("^time/.*$")))


def test_without_any_good_checkpoint_the_user_decides(project: Path) -> None:
    unfinish(project / "runs" / "tiny")
    for path in (project / "runs/tiny/checkpoints").iterdir():
        (path / "manifest.json").unlink()
    with pytest.raises(DiskProblem, match="no good checkpoint left; --fresh"):
        go(project)


def test_sessions_are_listed_with_the_step_they_resumed_from(project: Path) -> None:
    unfinish(project / "runs" / "tiny")
    go(project)
    sessions = json.loads((project / "runs/tiny/provenance.json").read_text())["sessions"]
    assert [session["resumed_from"] for session in sessions] == [None, 4]


def test_watches_see_the_run_from_open_to_close(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path / "project")
    heard: list[object] = []

    class Watcher:
        def hear(self, record: Record) -> None:
            heard.append(record.step)

    @contextmanager
    def watch(plan: Plan, directory: Path) -> Iterator[Watcher]:
        heard.append((plan.steps, sorted(path.name for path in directory.iterdir())))
        yield Watcher()
        heard.append(json.loads((directory / "summary.json").read_text())["status"])

    run(tiny.experiment(steps=2), Workspace(root), root / "elsewhere", watches=[watch])
    opened, *steps, closed = heard
    assert opened[0] == 2
    assert {"experiment.yaml", "plan.json", "provenance.json"} <= set(opened[1])
    assert steps == [0, 1, 2]
    assert closed == "complete"


def test_a_project_keeps_its_own_compiled_graphs_and_determinism_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    root = tiny.write_project(tmp_path / "project")
    (root / ".gnflow" / "inductor").mkdir(parents=True)
    seen: list[tuple[bool, str]] = []

    class Watcher:
        def hear(self, record: Record) -> None:
            seen.append((torch.are_deterministic_algorithms_enabled(), os.environ["TORCHINDUCTOR_CACHE_DIR"]))

    @contextmanager
    def watch(plan: Plan, directory: Path) -> Iterator[Watcher]:
        yield Watcher()

    run(tiny.experiment(steps=1), Workspace(root), watches=[watch])
    assert set(seen) == {(True, str(root / ".gnflow" / "inductor"))}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "broken"])
def test_a_directory_that_is_no_run_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("")
    elif kind != "missing":
        path.mkdir()
    if kind == "broken":
        (path / "experiment.yaml").write_text("name: [")
    message = {
        "missing": "is no run: there is no such directory",
        "file": "is no run: it is a file",
        "empty": "is no run: it has no experiment.yaml",
        "broken": "experiment.yaml",
    }
    with pytest.raises(SpecError, match=message[kind]):
        Run.load(path)


def test_a_run_under_way_can_be_read(project: Path) -> None:
    directory = project / "runs" / "tiny"
    unfinish(directory)
    with (directory / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind": "step", "st')
    found = Run.load(directory)
    assert found.summary == {}
    assert found.metrics["step"].to_list() == [0, 1, 2, 3, 4, 5]
    assert isinstance(read(directory / "journal.jsonl").records[-1], Step)
