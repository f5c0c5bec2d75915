from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

import gnflow
from gnflow.train.feed import batches
from gnflow.workspace import Workspace


@pytest.fixture
def workspace(finished: Path) -> Workspace:
    """A project with a finished run."""
    return Workspace(finished)


def test_steps_by_hand_end_with_the_weights_of_the_run(workspace: Workspace) -> None:
    plan = gnflow.plan(tiny.experiment())
    program, feed = gnflow.compile(plan), batches(plan, workspace)
    state = feed.begin(program)
    for batch, _ in zip(feed, range(plan.steps), strict=False):
        state, _ = program.step(state, batch)
    run = gnflow.Run.load(workspace.runs / "tiny")
    weights = load_file(run.directory / "model" / "params.safetensors")
    assert state.step == plan.steps == run.summary["steps"]
    assert all(torch.equal(state.params[name], weights[name]) for name in weights)
    assert len(feed.held_out) == plan.held_out
    last = program.evaluate(program.make_moment(state, feed.held_out))["loss/held_out"].item()
    assert last == run.summary["loss/held_out"]


def test_a_batch_is_a_function_of_its_step(workspace: Workspace) -> None:
    feed = batches(gnflow.plan(tiny.experiment()), workspace)
    third = [batch for batch, _ in zip(feed, range(3), strict=False)][2]
    assert third.shape == (2, 4, 17)
    assert torch.equal(feed.take(3), third)
    assert not torch.equal(feed.take(4), third)


def test_the_project_is_the_one_around_here(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    assert batches(gnflow.plan(tiny.experiment())).workspace == Workspace(finished)


def test_without_a_metric_on_held_out_data_there_are_no_evaluation_batches(workspace: Workspace) -> None:
    blind = tiny.experiment().model_copy(update={"metrics": ()})
    assert len(batches(gnflow.plan(blind), workspace).held_out) == 0


def test_without_weights_a_program_begins_with_the_models_first_ones() -> None:
    program = gnflow.compile(gnflow.plan(tiny.experiment()))
    drawn, given = program.init(), program.init(program.initial())
    assert drawn.step == given.step == 0
    assert drawn.params.keys() == given.params.keys()
    assert all(torch.equal(drawn.params[name], given.params[name]) for name in drawn.params)
