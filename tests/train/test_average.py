"""Runs that keep an average of their weights: evaluated, saved, resumed, and undone with undone steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from acting import Acting, Crash, crash
from quadratic import Quadratic, computed, experiment, poisoned, quadratic_plan, tokens, trained
from safetensors.torch import load_file

from gnflow import trees
from gnflow.compiler.plan import Plan
from gnflow.compiler.program import State
from gnflow.data.batches import Batches, take_held_out
from gnflow.train import checkpoint, results
from gnflow.train.journal import read
from gnflow.train.loop import run
from gnflow.workspace import Workspace

EMA = {"kind": "ema", "decay": 0.8}
TAIL = {"kind": "tail", "part": 0.5}
COLUMN = "loss/held_out_average"


def planned(average: object, **training: object) -> Plan:
    """The plan does not depend on the average, but for its memory."""
    return replace(quadratic_plan(**training), experiment=experiment(average=average, **training))


def losses(directory: Path, name: str = COLUMN) -> dict[int, float]:
    steps = read(directory / "journal.jsonl").steps
    return {step: record.values[name] for step, record in steps.items() if name in record.values}


@pytest.mark.parametrize(("average", "first"), [(EMA, 1), (TAIL, 7)])
def test_the_average_is_evaluated_beside_the_weights_once_there_is_one(
    tmp_path: Path, average: object, first: int
) -> None:
    state = trained(tmp_path / "run", planned(average))
    trained(tmp_path / "plain", quadratic_plan())
    found = losses(tmp_path / "run")
    assert list(found) == list(range(first, 13))
    # The first average is of one step: its weights as they are.
    assert found[first] == losses(tmp_path / "run", "loss/held_out")[first]
    batch, weights = take_held_out(tokens(2_000), 4, 8, 2), state.average.params
    by_hand = torch.stack([Quadratic().objective.value(weights, each) for each in batch]).mean().item()
    assert found[12] == by_hand != losses(tmp_path / "run", "loss/held_out")[12]
    # Training does not see it.
    assert losses(tmp_path / "run", "loss/held_out") == losses(tmp_path / "plain", "loss/held_out")
    summary = results.make_summary(
        planned(average), read(tmp_path / "run" / "journal.jsonl").steps, 12, results.COMPLETE
    )
    assert summary[COLUMN] == found[12]
    assert COLUMN not in results.make_summary(quadratic_plan(), read(tmp_path / "plain/journal.jsonl").steps, 12, "")


@pytest.mark.parametrize("average", [EMA, TAIL], ids=["ema", "tail"])
@pytest.mark.parametrize("at", [3, 11])
def test_a_run_that_crashes_and_goes_on_has_the_same_average(tmp_path: Path, average: object, at: int) -> None:
    plan = planned(average, checkpoint_every=4)
    whole = trained(tmp_path / "whole", plan)
    with pytest.raises(Crash):
        trained(tmp_path / "run", plan, Acting(at, crash))
    again = trained(tmp_path / "run", plan)
    assert computed(tmp_path / "run") == computed(tmp_path / "whole")
    assert again.average.steps == whole.average.steps
    for name in ("average.safetensors", "state.json", "manifest.json"):
        path = Path("checkpoints/step_00000012") / name
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize("average", [EMA, TAIL], ids=["ema", "tail"])
@pytest.mark.parametrize(("policy", "undone"), [("skip", (3, 9)), ("rollback", (3, 10)), ("rollback", (7,))])
def test_undone_steps_are_undone_of_the_average_too(
    tmp_path: Path, average: dict[str, object], policy: str, undone: tuple[int, ...]
) -> None:
    """By hand: the weights that led to the last ones are averaged, and no others."""
    plan, train = planned(average, checkpoint_every=4, on_nonfinite=policy), poisoned(*undone)
    state = trained(tmp_path, plan, train=train)
    program, batches = Quadratic(), Batches(train, 4, 8, seed=0)
    paths: list[list[tuple[int, State]]] = [[(0, program.init(program.first()))]]
    for step in range(1, 13):
        back = step - 1 if policy == "skip" or step not in undone else (step - 1) // 4 * 4
        path = list(paths[back])
        if step not in undone:
            before = State(step - 1, *trees.clone((path[-1][1].params, path[-1][1].optimizer)))
            path.append((step, program.step(before, batches.take((step - 1) * 3, 3))[0]))
        paths.append(path)
    taken = [(step, at.params["weight"].double()) for step, at in paths[12][1:] if average["kind"] == "ema" or step > 6]
    fading = [0.8 ** (len(taken) - 1 - i) if average["kind"] == "ema" else 1.0 for i in range(len(taken))]
    by_hand = sum(f * weight for f, (_, weight) in zip(fading, taken, strict=True)) / sum(fading)
    assert state.average.steps == len(taken)
    torch.testing.assert_close(state.average.params["weight"].double(), by_hand, rtol=1e-5, atol=1e-6)
    found = losses(tmp_path)
    assert all(found[step] == found[step - 1] for step in undone if policy == "skip" and step - 1 in found)


def test_a_real_run_leaves_its_average_as_a_model_to_start_from(tmp_path: Path) -> None:
    workspace = Workspace(tiny.write_project(tmp_path))
    one = tiny.experiment("muon", steps=4, start="scratch", average=EMA)
    done = run(one, workspace)
    model = done.directory / "model"
    assert checkpoint.find_damage(model) is None
    assert checkpoint.find_damage(model / "average") is None
    kept = load_file(done.directory / "checkpoints/step_00000004/average.safetensors")
    averaged, last = (load_file(folder / "params.safetensors") for folder in (model / "average", model))
    assert all(torch.equal(kept[name], averaged[name]) for name in last)
    assert not all(torch.equal(last[name], averaged[name]) for name in last)
    assert done.summary[COLUMN] == losses(done.directory)[4]
    start = {"kind": "checkpoint", "path": "runs/tiny/model/average"}
    again = run(tiny.experiment("muon", name="again", steps=2, start=start), workspace)
    assert losses(again.directory, "loss/held_out")[0] == pytest.approx(done.summary[COLUMN], rel=1e-6)
    # A model whose average is damaged is made again.
    (model / "average" / "params.safetensors").write_bytes(b"")
    assert not results.is_complete(done.directory)
    run(one, workspace)
    assert results.is_complete(done.directory)


def test_a_run_that_ends_before_its_tail_has_no_average(tmp_path: Path) -> None:
    trained(tmp_path / "whole", quadratic_plan())
    at_most = losses(tmp_path / "whole", "loss/held_out")[4]
    plan = replace(quadratic_plan(at_most), experiment=experiment(average=TAIL, target={"at_most": at_most}))
    state = trained(tmp_path / "run", plan)
    assert (state.step, state.average.steps) == (4, 0)
    (tmp_path / "run" / results.EXPERIMENT).write_text("")
    results.write_model(tmp_path / "run", tmp_path / "run/checkpoints/step_00000004")
    assert not (tmp_path / "run" / "model" / "average").exists()
    assert losses(tmp_path / "run") == {}
