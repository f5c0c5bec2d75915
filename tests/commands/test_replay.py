"""`gnflow replay` on real runs of a second."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from quadratic import POISON, Quadratic, tokens
from safetensors.torch import load_file

from gnflow.commands.replay import replay as command
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as compile_plan
from gnflow.data.batches import Batches
from gnflow.errors import DataError, Diverged, SpecError
from gnflow.train.loop import run
from gnflow.train.past import make_beginning
from gnflow.train.replay import NonFinite, NoSuchStep, replay, take_step
from gnflow.train.run import Run
from gnflow.workspace import Workspace

STEPS = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run of each kind, every state of which is kept."""
    root = tiny.write_project(tmp_path_factory.mktemp("project"))
    for optimizer in tiny.OPTIMIZERS:
        run(tiny.experiment(optimizer, name=optimizer, checkpoint_every=1), Workspace(root))
    return root


@pytest.fixture
def project(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, to be tampered with."""
    shutil.copytree(runs, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def weights(directory: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoints" / f"step_{step:08d}" / "params.safetensors")


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("step", [2, STEPS])
def test_it_takes_the_step_that_the_run_took(runs: Path, optimizer: str, step: int) -> None:
    directory = runs / "runs" / optimizer
    found = replay(Run.load(directory), step, Workspace(runs))
    assert (found.step, found.origin, found.first) == (step, step - 1, None)
    assert {name: found.recorded[name] for name in found.metrics} == found.metrics
    before, after = weights(directory, step - 1), weights(directory, step)
    assert {layer.name for layer in found.layers} == set(before)
    for layer in found.layers:
        assert layer.weight == pytest.approx(before[layer.name].norm().item(), rel=1e-5)
        assert layer.update == pytest.approx((after[layer.name] - before[layer.name]).norm().item(), rel=1e-5)
        assert layer.output is not None
    if "norm/gradient" in found.metrics:
        whole = sum(layer.gradient**2 for layer in found.layers if layer.gradient is not None) ** 0.5
        assert whole == pytest.approx(found.metrics["norm/gradient"], rel=1e-5)


def test_outputs_are_what_the_weights_yield(runs: Path) -> None:
    found = replay(Run.load(runs / "runs" / "adamw"), STEPS, Workspace(runs))
    experiment = tiny.experiment(name="adamw", checkpoint_every=1)
    from gnflow.data.prepare import prepare

    batches = prepare(experiment.data, Workspace(runs)).make_microbatches(4, 0)
    ids = batches.take((STEPS - 1) * 2 + 1, 1)[0, :, :-1]
    embedded = weights(runs / "runs" / "adamw", STEPS - 1)["embedding.weight"][ids]
    (layer,) = [layer for layer in found.layers if layer.name == "embedding.weight"]
    assert layer.output == pytest.approx(embedded.square().mean().sqrt().item(), rel=1e-6)


@pytest.mark.parametrize("step", [1, 4])
def test_without_checkpoints_it_goes_on_from_the_start_or_from_what_is_left(project: Path, step: int) -> None:
    directory = project / "runs" / "muon"
    whole = replay(Run.load(directory), step, Workspace(project))
    (directory / "checkpoints/step_00000003/params.safetensors").write_bytes(b"rotten")
    said: list[str] = []
    damaged = replay(Run.load(directory), step, Workspace(project), said.append)
    assert damaged._replace(origin=0) == whole._replace(origin=0)
    if step == 4:
        assert damaged.origin == 2
        assert "step_00000003 is not used: params.safetensors has 6 bytes" in said[0]
        assert said[1].endswith("1 steps before it again, from checkpoint step_00000002")
    shutil.rmtree(directory / "checkpoints")
    assert replay(Run.load(directory), step, Workspace(project))._replace(origin=0) == whole._replace(origin=0)


def test_a_step_that_made_an_update_non_finite_is_told_as_that(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny.experiment(name="broken")
    method = experiment.optimizer.model_copy(update={"learning_rate": 1e39})
    with pytest.raises(Diverged, match="step 1: "):
        run(experiment.model_copy(update={"optimizer": method}), Workspace(project))
    capsys.readouterr()
    assert command(Path("broken"), 1) == 0
    out = capsys.readouterr().out
    assert "diverged: step 1: norm/update is nan" in out
    assert "the first tensor that is not finite is the update of `embedding.weight`" in out
    assert command(Path("broken"), 1, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == {"kind": "update", "name": "embedding.weight", "microbatch": None}
    assert found["layers"][0]["update"] == "nan"
    assert found["recorded"] == {}


def test_the_first_that_is_not_finite_is_named_in_the_order_of_the_step() -> None:
    experiment = tiny.experiment()
    program = compile_plan(plan(experiment), compiled=False)
    torch.manual_seed(0)
    batch = torch.randint(0, 256, (2, 4, 17))
    for name, value, first in (
        ("blocks.0.attention.value.weight", 3e38, NonFinite("output", "blocks.0.attention.value.weight", 8)),
        ("blocks.0.attention.value.weight", float("nan"), NonFinite("weight", "blocks.0.attention.value.weight", None)),
        ("head.weight", 3e38, NonFinite("output", "head.weight", 8)),
        (None, 0.0, None),
    ):
        params = program.initial()
        if name:
            params[name] = params[name].sign() * value
        assert take_step(program, make_beginning(program, params), batch, 8).first == first


def test_a_poisoned_token_is_found_in_its_microbatch() -> None:
    program, train = Quadratic(), tokens()
    number = int(Batches(train, 4, 8, seed=0).find_rows(19, 1)[0][2])
    train[number * 8 + 4] = POISON
    state = program.init(program.first())
    found = take_step(program, state._replace(step=6), Batches(train, 4, 8, seed=0).take(18, 3), 18)  # type: ignore[arg-type]
    assert found.first == NonFinite("loss", "loss", 19)
    assert [loss == float("inf") for loss in found.losses] == [False, True, False]
    assert torch.equal(state.params["weight"], program.first()["weight"])


def test_what_cannot_be_replayed_is_said(project: Path) -> None:
    with pytest.raises(NoSuchStep, match=r"adamw has no step 7; give a step from 1 to 6") as raised:
        command(Path("adamw"), 7)
    assert raised.value.exit_code == 2
    with pytest.raises(NoSuchStep, match="has no step 0"):
        command(Path("adamw"), 0)
    with pytest.raises(SpecError, match="did you mean `adamw`"):
        command(Path("adam"), 1)
    (project / "text.txt").write_text((project / "text.txt").read_text().replace("quick", "quiet"))
    with pytest.raises(DataError, match="changed since this run began"):
        command(Path("adamw"), 1)


def test_nothing_in_the_run_is_touched(project: Path) -> None:
    directory = project / "runs" / "adamw"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    command(Path("adamw"), 3)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_states_behind_undone_steps_are_those_of_the_run(project: Path, policy: str) -> None:
    rule = {"on_nonfinite": policy, "spike": {"above": 0.01, "window": 2}, "max_undone": 14, "rows": 1}
    done = run(tiny.experiment(name=policy, steps=14, checkpoint_every=4, **rule), Workspace(project))
    kept = {int(path.name[5:]) for path in (done.directory / "checkpoints").iterdir()}
    undone = [step for step in range(1, 15) if (done.directory / f"offending/step_{step:08d}").is_dir()]
    assert len(undone) >= 2
    for step in kept - {0}:  # the state of every other one has to come through steps that were undone
        shutil.rmtree(done.directory / "checkpoints" / f"step_{step:08d}")
    for step in (undone[0], undone[-1], 14):
        found = replay(done, step, Workspace(project))
        assert found.origin == 0
        assert found.recorded["loss/train"] == found.metrics["loss/train"]
        assert bool(found.events) is (step in undone)
