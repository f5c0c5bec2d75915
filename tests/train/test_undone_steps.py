"""Steps with a loss, gradient or update that is not finite, or with a spike, under each policy of the spec."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from acting import Acting, Crash, crash
from quadratic import MICROBATCHES, POISON, Quadratic, computed, experiment, poisoned, quadratic_plan, tokens, trained
from safetensors.torch import load_file
from torch import Tensor

from gnflow import trees
from gnflow.compiler.plan import plan as make_plan
from gnflow.compiler.program import State
from gnflow.data.batches import Batches
from gnflow.errors import Diverged
from gnflow.train import checkpoint, results
from gnflow.train.journal import Event, Step, read

EVERY = 4


def by_hand(train: np.ndarray, policy: str, *undone: int) -> State:
    """The oracle: the same run with every state kept, and the policy applied as its words say."""
    program, batches = Quadratic(), Batches(train, 4, 8, seed=0)
    states = {0: program.init(program.first())}
    for step in range(1, 13):
        before = (step - 1 if policy == "skip" else (step - 1) // EVERY * EVERY) if step in undone else step - 1
        params, optimizer = trees.clone((states[before].params, states[before].optimizer))
        if step in undone:
            states[step] = State(step, params, optimizer)
        else:
            batch = batches.take((step - 1) * MICROBATCHES, MICROBATCHES)
            states[step], _ = program.step(State(step - 1, params, optimizer), batch)
    return states[12]


def events(directory: Path) -> list[Event]:
    return read(directory / "journal.jsonl").events


def saved_steps(directory: Path) -> list[int]:
    return [checkpoint.read_step(path) for path in checkpoint.list_checkpoints(directory / "checkpoints")]


def assert_equal(directory: Path, whole: Path) -> None:
    """Journals but for clocks, and every other file bit for bit."""
    assert computed(directory) == computed(whole)
    names = [
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (directory, whole)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        if name not in ("journal.jsonl", "metrics.parquet", "summary.json"):
            assert (directory / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("undone", [(7,), (1,), (12,), (3, 6, 7), (5, 8, 9)])
def test_poisoned_steps_are_undone_as_the_policy_says(tmp_path: Path, policy: str, undone: tuple[int, ...]) -> None:
    train = poisoned(*undone)
    plan = quadratic_plan(checkpoint_every=EVERY, on_nonfinite=policy)
    state = trained(tmp_path, plan, train=train)
    expected = by_hand(train, policy, *undone)
    for name, tensor in trees.name_tensors((expected.params, expected.optimizer)).items():
        assert torch.equal(trees.name_tensors((state.params, state.optimizer))[name], tensor), name
    assert [event.step for event in events(tmp_path)] == list(undone)
    steps = read(tmp_path / "journal.jsonl").steps
    assert list(steps) == list(range(13))
    assert [steps[step].values["steps/undone"] for step in range(13)] == [
        sum(one <= step for one in undone) for step in range(13)
    ]
    # What it cost is counted, whether it was of use or not.
    assert steps[12].values["tokens/total"] == 12 * plan.tokens_solve
    assert steps[12].values["flops/total"] == 12 * plan.flops
    assert all("norm/gradient" not in steps[step].values for step in undone)
    assert all("loss/held_out" in record.values for record in steps.values())
    summary = results.make_summary(plan, steps, 12, results.COMPLETE)
    assert summary["steps/undone"] == len(undone)


def test_an_event_names_step_microbatch_row_and_what_was_done(tmp_path: Path) -> None:
    for policy, name, then in (
        ("skip", "skipped", "the step is not taken"),
        ("rollback", "rolled_back", "the weights are those after step 4 again"),
    ):
        train = poisoned(7)
        number = int(Batches(train, 4, 8, seed=0).find_rows(19, 1)[0][2])
        trained(tmp_path / policy, quadratic_plan(checkpoint_every=EVERY, on_nonfinite=policy), train=train)
        (event,) = events(tmp_path / policy)
        assert (event.step, event.name) == (7, name)
        assert event.message == (
            "loss/train is inf; micro-batch 19 has loss inf already at the weights before the step, in its rows 2 "
            f"(rows {number} of the training text); {then} (1 of at most 10)"
        )


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("at", [2, 3, 5, 6, 7])  # around the steps that are undone
def test_a_run_that_undoes_steps_and_crashes_anywhere_equals_one_that_does_not(
    tmp_path: Path, policy: str, at: int
) -> None:
    plan, train = quadratic_plan(checkpoint_every=EVERY, on_nonfinite=policy), poisoned(3, 6, 7)
    trained(tmp_path / "whole", plan, train=train)
    with pytest.raises(Crash):
        trained(tmp_path / "run", plan, Acting(at, crash), train=train)
    trained(tmp_path / "run", plan, train=train)
    assert_equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("damaged", [4, 5, 6])
def test_a_damaged_checkpoint_changes_nothing_about_what_is_undone(tmp_path: Path, policy: str, damaged: int) -> None:
    plan, train = quadratic_plan(checkpoint_every=EVERY, on_nonfinite=policy), poisoned(3, 6, 7)
    trained(tmp_path / "whole", plan, train=train)
    with pytest.raises(Crash):
        trained(tmp_path / "run", plan, Acting(7, crash), train=train)
    for step in range(damaged, 8):  # it and those after it
        path = checkpoint.make_path(tmp_path / "run" / "checkpoints", step) / "params.safetensors"
        if path.exists():
            path.write_bytes(path.read_bytes()[:-1])
    trained(tmp_path / "run", plan, train=train)
    assert computed(tmp_path / "run") == computed(tmp_path / "whole")
    last = Path("checkpoints/step_00000012/optimizer.safetensors")
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_temporary_checkpoints_do_not_change_where_a_rollback_goes(tmp_path: Path) -> None:
    train = poisoned(3, 7)
    often = quadratic_plan(checkpoint_every=EVERY, on_nonfinite="rollback", temporary_checkpoint_minutes=1e-9)
    seldom = quadratic_plan(checkpoint_every=EVERY, on_nonfinite="rollback")
    for name, plan in (("often", often), ("seldom", seldom)):
        trained(tmp_path / name, plan, train=train)
    assert_equal(tmp_path / "often", tmp_path / "seldom")
    assert saved_steps(tmp_path / "often") == [0, 2, 4, 6, 8, 12]


def test_one_step_too_many_ends_the_run_as_raise_does(tmp_path: Path) -> None:
    plan, train = quadratic_plan(checkpoint_every=EVERY, on_nonfinite="skip", max_undone=2), poisoned(3, 6, 9)
    for _ in range(2):  # the second time from the weights before it
        with pytest.raises(Diverged, match=r"step 9: loss/train is inf; .*training\.max_undone is 2") as raised:
            trained(tmp_path, plan, train=train)
        assert raised.value.exit_code == 5
    assert [(event.step, event.name) for event in events(tmp_path)] == [
        (3, "skipped"), (6, "skipped"), (9, "diverged"),
    ]  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["steps/undone"]) == ("diverged", 8, 2)
    assert max(saved_steps(tmp_path)) == 8


@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_the_batch_and_the_state_before_it_are_kept(tmp_path: Path, policy: str) -> None:
    plan, train = quadratic_plan(checkpoint_every=EVERY, on_nonfinite=policy), poisoned(7)
    if policy == "raise":
        with pytest.raises(Diverged):
            trained(tmp_path, plan, train=train)
    else:
        trained(tmp_path, plan, train=train)
    batches, kept = Batches(train, 4, 8, seed=0), tmp_path / "offending" / "step_00000007"
    found = load_file(kept / "batch.safetensors")
    assert torch.equal(found["tokens"], batches.take(18, 3))
    assert found["microbatches"].tolist() == [18, 19, 20]
    assert (found["step"].item(), found["to_blame"].tolist()) == (7, [[19, 2]])
    assert found["rows"].tolist() == batches.find_rows(18, 3).tolist()
    told = json.loads((kept / "batch.json").read_text())
    assert (told["step"], told["problem"], told["microbatch"]) == (7, "loss/train is inf", 19)
    (row,) = told["rows"]
    assert (row["row"], row["in_the_data"]) == (2, batches.find_rows(19, 1)[0][2])
    assert row["text"] == " ".join(map(str, batches.take(19, 1)[0, 2].tolist()))
    assert 6 in saved_steps(tmp_path)
    program = Quadratic()
    state = checkpoint.load(tmp_path / "checkpoints/step_00000006", program.make_template(), program.device)
    for step in range(6):
        assert step == 0 or "norm/gradient" in read(tmp_path / "journal.jsonl").steps[step].values
    again, _ = program.step(state, batches.take(18, 3))
    assert not again.params["weight"].isfinite().all()


class Leaping(Quadratic):
    """One step is so large that the update, or only what is made of it, cannot be represented."""

    def __init__(self, at: int, factor: float) -> None:
        super().__init__()
        self.at, self.factor = at, factor

    def step(self, state: State, batch: Tensor) -> tuple[State, dict[str, Tensor]]:
        leaping = state.step + 1 == self.at
        self.learning_rate = 5.0 * (self.factor if leaping else 1.0)
        return super().step(state, batch)


@pytest.mark.parametrize(
    ("factor", "problem"),
    [(1e39, "the update makes `weight` non-finite"), (1e25, "loss/held_out is inf")],
)
def test_an_update_that_goes_too_far_is_skipped(tmp_path: Path, factor: float, problem: str) -> None:
    plan = quadratic_plan(on_nonfinite="skip")
    trained(tmp_path, plan, program=Leaping(6, factor))
    (event,) = events(tmp_path)
    assert (event.step, event.name) == (6, "skipped")
    assert event.message.startswith(f"{problem}; micro-batches 15 to 17 all have a finite loss")
    steps = read(tmp_path / "journal.jsonl").steps
    assert steps[6].values["loss/held_out"] == steps[5].values["loss/held_out"]
    assert steps[12].values["loss/held_out"] < steps[6].values["loss/held_out"]


def shifted(step: int, by: int = 30_000) -> np.ndarray:
    """A text in which a row of this step is so far off that the loss is a multiple of those before."""
    train = tokens()
    number = int(Batches(tokens(), 4, 8, seed=0).find_rows((step - 1) * MICROBATCHES + 1, 1)[0][2])
    train[number * 8 : number * 8 + 9] = by
    return train


class Spiking(Quadratic):
    """Tokens beyond the vocabulary have a weight that is not trained, and a loss that is finite and large."""

    def _value(self, params: dict[str, Tensor], tokens: Tensor) -> Tensor:
        strange = tokens >= POISON
        return super()._value(params, tokens.where(~strange, 0)) + 100.0 * strange.float().mean()


@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_a_spike_is_undone_as_what_is_not_finite(tmp_path: Path, policy: str) -> None:
    train = shifted(9)
    plan = make_plan(experiment(checkpoint_every=EVERY, on_nonfinite=policy, spike={"above": 3.0, "window": 4}))
    number = int(Batches(train, 4, 8, seed=0).find_rows(25, 1)[0][2])
    where = rf"of its micro-batches 25 has the largest loss .* there row 2 \(row {number} of the training text\)"
    if policy == "raise":
        with pytest.raises(Diverged, match=rf"step 9: loss/train is [\d.]+, a spike: .*{where}"):
            trained(tmp_path, plan, program=Spiking(), train=train)
        return
    trained(tmp_path, plan, program=Spiking(), train=train)
    (event,) = events(tmp_path)
    assert event.step == 9
    assert "a spike: the last 4 losses allow" in event.message
    steps = read(tmp_path / "journal.jsonl").steps
    assert steps[9].values["loss/train"] > 2 * steps[8].values["loss/train"]
    origin = 8
    assert steps[9].values["loss/held_out"] == steps[origin].values["loss/held_out"]
    # Without the rule it is a step like any other.
    trained(tmp_path / "off", quadratic_plan(checkpoint_every=EVERY), program=Spiking(), train=train)
    assert not events(tmp_path / "off")


def test_a_spike_is_measured_in_deviations_of_the_losses_before_it() -> None:
    from gnflow.spec.training import Spike
    from gnflow.train.divergence import describe_spike

    losses = [4.0, 6.0, 4.0, 6.0]  # mean 5, deviation 2 / sqrt 3
    steps = {step: Step(step, 0.0, {"loss/train": loss}) for step, loss in enumerate([99.0, *losses], start=1)}
    bound = 5 + 3 * 2 / 3**0.5
    rule = Spike(above=3.0, window=4)
    assert describe_spike(rule, 6, bound + 1e-6, steps, set())
    assert describe_spike(rule, 6, bound - 1e-6, steps, set()) is None
    assert describe_spike(rule, 5, 1e9, steps, {2}) is None  # three losses are no window of four
    assert describe_spike(Spike(above=3.0, window=5), 6, 100.0, steps, set()) is None  # 99 is among them
    assert describe_spike(rule, 6, bound + 1e-6, steps, {5}) is None  # and here in the place of one that was undone
    assert describe_spike(None, 6, 1e9, steps, set()) is None


def test_a_step_on_record_as_undone_stays_so_where_the_bits_differ(tmp_path: Path) -> None:
    """As after a move to another machine: the journal decides, and the weights go on from what it says."""
    plan, train = quadratic_plan(checkpoint_every=EVERY, on_nonfinite="skip"), poisoned(6)
    trained(tmp_path / "whole", plan, train=train)
    with pytest.raises(Crash):
        trained(tmp_path / "run", plan, Acting(6, crash), train=train)
    mended = tokens()
    trained(tmp_path / "run", plan, train=mended)
    assert next((event.step, event.name) for event in events(tmp_path / "run")) == (6, "skipped")
    last = Path("checkpoints/step_00000012/params.safetensors")
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
