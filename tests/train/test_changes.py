"""A run that is there goes on under a changed spec where that changes no result, and to a later end where it may."""

import shutil
from pathlib import Path

import pytest
import tiny
from equal_runs import assert_equal_but_for_clocks
from safetensors.torch import load_file

from gnflow.commands.rerun import rerun
from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.train import provenance, results
from gnflow.train.changes import EXTENDED
from gnflow.train.directory import establish
from gnflow.train.journal import Journal, Step, read
from gnflow.train.loop import run
from gnflow.train.run import Run
from gnflow.workspace import Workspace

STEADY = {
    "adamw": {"kind": "adamw", "microbatches": 2, "schedule": {"kind": "constant", "warmup": 8}},
    "muon": {"kind": "muon"},
    "gauss_newton": tiny.OPTIMIZERS["gauss_newton"],
}


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def spec(optimizer: str = "adamw", **training: object) -> Experiment:
    return Experiment.model_validate({**tiny.tiny(**training), "optimizer": STEADY[optimizer]})


def at(root: Path, directory: str, experiment: Experiment, extend: bool = False, said: list[str] | None = None) -> Run:
    report = (lambda line: None) if said is None else said.append
    return run(experiment, Workspace(root), root / directory, extend=extend, report=report)


def values(directory: Path) -> dict[int, dict[str, float]]:
    steps: dict[int, Step] = read(directory / "journal.jsonl").steps
    return {
        number: {name: value for name, value in step.values.items() if not name.startswith("time/")}
        for number, step in steps.items()
    }


@pytest.mark.parametrize("optimizer", STEADY)
def test_six_steps_extended_to_twelve_are_twelve_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    at(root, "runs/a", spec(optimizer))
    done = at(root, "runs/a", spec(optimizer, steps=12), extend=True)
    at(root, "runs/b", spec(optimizer, steps=12))
    assert done.summary["steps"] == 12
    assert values(root / "runs/a") == values(root / "runs/b")
    for name in ("model/params.safetensors", "model/experiment.yaml", "checkpoints/step_00000012/optimizer.safetensors",
                 "experiment.yaml"):  # fmt: skip
        assert (root / "runs/a" / name).read_bytes() == (root / "runs/b" / name).read_bytes(), name


def test_an_extension_is_recorded_and_said(project: Path) -> None:
    directory, said = project / "runs" / "tiny", list[str]()
    run(tiny.experiment(steps=8), Workspace(project), extend=True, report=said.append)
    assert "the existing run continues from step 6, extended: training.steps 6 -> 8" in said
    [event] = [event for event in read(directory / "journal.jsonl").events if event.name == EXTENDED]
    assert (event.step, event.message) == (6, "training.steps 6 -> 8")
    sessions = provenance.read(directory)["sessions"]
    assert isinstance(sessions, list)
    assert [session.get("changed") for session in sessions] == [None, {"training.steps": {"there": "6", "now": "8"}}]
    assert sessions[1]["resumed_from"] == 6
    assert Run.load(directory).experiment == tiny.experiment(steps=8)


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [
        ({"kind": "adamw", "schedule": "cosine"}, "`optimizer.schedule` is `cosine`"),
        ({**tiny.OPTIMIZERS["gauss_newton"], "schedule": "inner_cosine"}, "`optimizer.schedule` is `inner_cosine`"),
        ({**tiny.OPTIMIZERS["gauss_newton"], "schedule": "global_cosine"}, "`optimizer.schedule` is `global_cosine`"),
    ],
)
def test_a_schedule_that_looks_ahead_is_refused_with_the_reason(
    optimizer: dict[str, object], key: str, tmp_path: Path
) -> None:
    root = tiny.write_project(tmp_path)
    ahead = [Experiment.model_validate({**tiny.tiny(steps=steps), "optimizer": optimizer}) for steps in (1, 2)]
    at(root, "runs/a", ahead[0])
    before = values(root / "runs/a")
    with pytest.raises(SpecError, match="which looks ahead") as raised:
        at(root, "runs/a", ahead[1], extend=True)
    assert key in str(raised.value)
    with pytest.raises(SpecError) as without:
        at(root, "runs/a", ahead[1])
    assert "--extend" not in str(without.value)
    assert results.is_complete(root / "runs/a")
    assert values(root / "runs/a") == before


def test_without_extend_the_option_is_named_where_it_would_do(project: Path) -> None:
    with pytest.raises(SpecError, match="--extend lets the existing run continue"):
        run(tiny.experiment(steps=9), Workspace(project))
    with pytest.raises(SpecError) as raised:
        run(tiny.experiment(steps=9, seed=3), Workspace(project))
    assert "--extend" not in str(raised.value)
    with pytest.raises(SpecError, match=r"training.seed +0 -> 3"):
        run(tiny.experiment(steps=9, seed=3), Workspace(project), extend=True)


@pytest.mark.parametrize("steps", [4, 5])
def test_an_earlier_end_is_no_extension_and_nothing_is_touched(steps: int, project: Path) -> None:
    directory = project / "runs" / "tiny"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(SpecError, match=f"has taken 6 steps already, and this spec has {steps}"):
        run(tiny.experiment(steps=steps), Workspace(project), extend=True)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_a_run_that_stopped_at_its_target_goes_on_to_a_further_one(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    at(root, "runs/long", spec(steps=10))
    losses = {step: record["loss/held_out"] for step, record in values(root / "runs/long").items()}
    near, far = losses[4], min(losses[step] for step in range(5, 9))
    stopped = at(root, "runs/a", spec(steps=10, target={"at_most": near}))
    assert int(str(stopped.summary["steps"])) <= 4
    at(root, "runs/a", spec(steps=10, target={"at_most": far}), extend=True)
    at(root, "runs/b", spec(steps=10, target={"at_most": far}))
    assert values(root / "runs/a") == values(root / "runs/b")
    with pytest.raises(SpecError, match="reached this target at step"):
        at(root, "runs/a", spec(steps=10, target={"at_most": losses[0]}), extend=True)


NEUTRAL = {
    "training": {"checkpoint_every": 3, "temporary_checkpoint_minutes": 1.0},
    "tracking": {"kind": "none"},
    "compile": {"mode": "off", "max_recompiles": 4, "max_graph_breaks": 2},
}


def half_done(directory: Path, experiment: Experiment) -> None:
    """As a kill after step 4 leaves it: nothing of the end, and no later step on record."""
    for name in ("summary.json", "metrics.parquet"):
        (directory / name).unlink()
    shutil.rmtree(directory / "model")
    shutil.rmtree(directory / "checkpoints" / "step_00000006")
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "journal.jsonl").write_bytes(b"".join(lines[:5]))


def changed(tree: dict[str, object]) -> Experiment:
    training = {**tree["training"], **NEUTRAL["training"]}  # type: ignore[dict-item]
    return Experiment.model_validate({**tree, **NEUTRAL, "training": training})


def test_keys_that_change_no_result_may_change_on_resume_and_are_recorded(project: Path) -> None:
    directory = project / "runs" / "tiny"
    untouched = values(directory)
    half_done(directory, tiny.experiment())
    now, said = changed(tiny.tiny()), list[str]()
    assert run(now, Workspace(project), report=said.append).summary["status"] == "complete"
    assert values(directory) == untouched
    assert Run.load(directory).experiment == now
    [event] = [event for event in read(directory / "journal.jsonl").events if event.name == "changed"]
    assert event.step == 4
    assert "training.checkpoint_every 2 -> 3" in event.message
    assert "compile.max_recompiles 0 -> 4" in event.message
    assert any("continues from step 4, changed: " in line for line in said)


def test_a_finished_run_is_left_alone_by_keys_that_change_no_result(project: Path) -> None:
    said: list[str] = []
    run(changed(tiny.tiny()), Workspace(project), report=said.append)
    assert said[0].endswith("is finished; --fresh would run it again")
    assert Run.load(project / "runs" / "tiny").experiment == tiny.experiment()


def test_superseding_resumes_a_run_that_differs_in_such_keys_alone(project: Path) -> None:
    half_done(project / "runs" / "tiny", tiny.experiment())
    run(changed(tiny.tiny()), Workspace(project), supersede=True)
    assert not (project / "runs" / ".superseded").exists()


def test_the_schedule_of_checkpoints_counts_where_a_rollback_goes_to_one(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    at(root, "runs/a", spec(on_nonfinite="rollback"))
    with pytest.raises(SpecError, match=r"training.checkpoint_every +2 -> 3"):
        at(root, "runs/a", spec(on_nonfinite="rollback", checkpoint_every=3))


def test_an_extension_that_was_killed_before_its_spec_was_written_leaves_the_run_as_it_was(project: Path) -> None:
    directory = project / "runs" / "tiny"
    model = (directory / "model" / "params.safetensors").read_bytes()
    shutil.rmtree(directory / "model")  # what `establish` does first
    run(tiny.experiment(), Workspace(project))
    assert (directory / "model" / "params.safetensors").read_bytes() == model
    run(tiny.experiment(steps=8), Workspace(project), extend=True)
    last = load_file(directory / "checkpoints" / "step_00000008" / "params.safetensors")
    final = load_file(directory / "model" / "params.safetensors")
    assert all(final[name].equal(last[name]) for name in last)


def test_an_extension_that_was_killed_after_its_spec_was_written_goes_on(project: Path) -> None:
    directory = project / "runs" / "tiny"
    with_eight = tiny.experiment(steps=8)
    establish(directory, with_eight, Run.load(directory).plan, changed=True)
    done = run(with_eight, Workspace(project))
    assert done.summary["steps"] == 8
    with_eight_at_once = run(with_eight, Workspace(project), project / "runs" / "at_once")
    assert_equal_but_for_clocks(directory, with_eight_at_once.directory)


def test_a_repetition_of_an_extended_run_agrees_though_its_first_end_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.write_project(tmp_path)
    at(root, "runs/a", spec(steps=3, evaluate_every=2))
    at(root, "runs/a", spec(steps=6, evaluate_every=2), extend=True)
    assert "loss/held_out" in values(root / "runs/a")[3]
    assert rerun(root / "runs/a", keep=None, json=False) == 0
    assert "agrees bit for bit over 6 steps" in capsys.readouterr().out


def test_the_event_is_written_once_however_often_the_command_is_killed(project: Path) -> None:
    directory = project / "runs" / "tiny"
    from gnflow.compiler.plan import plan
    from gnflow.train.loop import _record_changes

    for _ in range(3):
        journal = Journal(directory / "journal.jsonl")
        _record_changes(journal, plan(tiny.experiment(steps=8)), {"training.steps": ("6", "8")}, lambda line: None)
        assert journal.find_steps_with(EXTENDED) == {6}
        journal.close()
    assert [event.name for event in read(directory / "journal.jsonl").events].count(EXTENDED) == 1
