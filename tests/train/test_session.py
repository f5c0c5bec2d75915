import json
import os
import signal
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from acting import Acting, Crash, crash
from quadratic import POISON, Momentum, Quadratic, computed, quadratic_plan, tokens, trained

from gnflow import trees
from gnflow.compiler.program import State
from gnflow.data.batches import Batches
from gnflow.errors import Diverged, Interrupted, Preempted
from gnflow.train import checkpoint, results
from gnflow.train.journal import Record, read
from gnflow.train.signals import Stop


class Heard(list[Record]):
    def hear(self, record: Record) -> None:
        self.append(record)


def saved_steps(directory: Path) -> list[int]:
    return [checkpoint.read_step(path) for path in checkpoint.list_checkpoints(directory / "checkpoints")]


def test_a_run_records_every_step_from_the_starting_weights_on(tmp_path: Path) -> None:
    heard = Heard()
    state = trained(tmp_path, quadratic_plan(), heard)
    steps = read(tmp_path / "journal.jsonl").steps
    assert list(steps) == list(range(13))
    assert state.step == 12
    assert set(steps[0].values) == {
        "loss/held_out", "tokens/solve", "tokens/search", "tokens/total", "passes/serial", "flops/total",
        "time/seconds", "time/cpu", "time/compile", "time/wall",
    }  # fmt: skip
    assert steps[0].values["tokens/total"] == steps[0].values["time/seconds"] == steps[0].values["time/cpu"] == 0
    assert steps[12].values["loss/held_out"] < 0.5 * steps[0].values["loss/held_out"]
    assert heard == list(steps.values())


def test_counters_are_cumulative_and_come_from_the_plan(tmp_path: Path) -> None:
    plan = quadratic_plan()
    trained(tmp_path, plan)
    values = read(tmp_path / "journal.jsonl").steps[7].values
    assert values["tokens/solve"] == 7 * 3 * 4 * 8 == values["tokens/total"]
    assert values["tokens/search"] == 0
    assert values["passes/serial"] == 7
    assert values["flops/total"] == 7 * plan.flops > 0


def test_clocks_never_run_backwards(tmp_path: Path) -> None:
    trained(tmp_path, quadratic_plan())
    for name in ("time/seconds", "time/cpu", "time/wall"):
        times = [record.values[name] for record in read(tmp_path / "journal.jsonl").steps.values()]
        assert times == sorted(times)
        assert times[-1] > 0


def test_evaluations_come_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    trained(tmp_path, quadratic_plan(evaluate_every=5))
    steps = read(tmp_path / "journal.jsonl").steps
    assert [step for step, record in steps.items() if "loss/held_out" in record.values] == [0, 5, 10, 12]


def test_kept_checkpoints_follow_the_schedule_and_the_last_step_is_always_saved(tmp_path: Path) -> None:
    trained(tmp_path, quadratic_plan())
    assert saved_steps(tmp_path) == [5, 10, 12]


def test_a_temporary_checkpoint_is_made_often_and_replaced_by_the_next(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    watchers = [Acting(step, lambda: seen.append(saved_steps(tmp_path / "run"))) for step in range(1, 13)]
    trained(tmp_path / "run", quadratic_plan(temporary_checkpoint_minutes=1e-9), *watchers)
    assert seen == [
        [0], [1], [2], [3], [4], [5], [5, 6], [5, 7], [5, 8], [5, 9], [5, 10], [5, 10, 11],
    ]  # fmt: skip
    assert saved_steps(tmp_path / "run") == [5, 10, 12]


def test_reaching_the_target_ends_the_run(tmp_path: Path) -> None:
    trained(tmp_path / "whole", quadratic_plan())
    losses = [record.values["loss/held_out"] for record in read(tmp_path / "whole" / "journal.jsonl").steps.values()]
    plan = quadratic_plan(at_most=losses[4])
    state = trained(tmp_path / "short", plan)
    assert state.step == 4
    assert saved_steps(tmp_path / "short") == [4]
    summary = results.make_summary(plan, read(tmp_path / "short" / "journal.jsonl").steps, 4, results.COMPLETE)
    assert summary["target/step"] == summary["steps"] == 4
    assert summary["target/tokens"] == 4 * 96
    assert summary["target/passes"] == 4
    assert summary["target/seconds"] == summary["time/seconds"] > 0


@pytest.mark.parametrize("at", range(12))
def test_a_run_that_crashes_anywhere_and_goes_on_equals_one_that_does_not(tmp_path: Path, at: int) -> None:
    plan = quadratic_plan(checkpoint_every=4)
    whole = trained(tmp_path / "whole", plan)
    with pytest.raises(Crash):
        trained(tmp_path / "run", plan, Acting(at, crash))
    again = trained(tmp_path / "run", plan)
    assert computed(tmp_path / "run") == computed(tmp_path / "whole")
    for name in ("params.safetensors", "optimizer.safetensors"):
        path = Path("checkpoints/step_00000012") / name
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    assert torch.equal(again.params["weight"], whole.params["weight"])
    assert saved_steps(tmp_path / "run") == saved_steps(tmp_path / "whole")


def test_a_step_that_is_recomputed_keeps_its_first_timings_and_the_clock_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        trained(tmp_path, quadratic_plan(), Acting(8, crash))
    before = read(tmp_path / "journal.jsonl").steps
    heard = Heard()
    trained(tmp_path, quadratic_plan(), heard)
    after = read(tmp_path / "journal.jsonl").steps
    assert all(after[step] == record for step, record in before.items())
    assert [record.step for record in heard] == [9, 10, 11, 12]
    assert after[9].values["time/seconds"] > before[8].values["time/seconds"]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path: Path) -> None:
    trained(tmp_path / "whole", quadratic_plan())
    with pytest.raises(Crash):
        trained(tmp_path / "run", quadratic_plan(), Acting(11, crash))
    os.truncate(tmp_path / "run/checkpoints/step_00000010/optimizer.safetensors", 100)
    program = Quadratic()
    trained(tmp_path / "run", quadratic_plan(), program=program)
    assert program.steps_taken == 7
    assert computed(tmp_path / "run") == computed(tmp_path / "whole")
    assert checkpoint.find_damage(tmp_path / "run/checkpoints/step_00000010") is None


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Preempted, 6)]
)
def test_a_signal_finishes_the_step_saves_and_leaves(
    tmp_path: Path, number: signal.Signals, error: type[Interrupted], code: int
) -> None:
    plan = quadratic_plan()
    trained(tmp_path / "whole", plan)
    with pytest.raises(error, match="stopped after step 7 of 12; the same command resumes") as raised:
        trained(tmp_path / "run", plan, Acting(7, lambda: signal.raise_signal(number)))
    assert raised.value.exit_code == code
    assert saved_steps(tmp_path / "run") == [5, 7]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("preempted", 7)
    trained(tmp_path / "run", plan)
    assert computed(tmp_path / "run") == computed(tmp_path / "whole")
    assert saved_steps(tmp_path / "run") == [5, 10, 12]
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_after_the_first_signal_the_kernel_takes_the_second(tmp_path: Path) -> None:
    with Stop(lambda line: None) as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_before_the_first_step_a_signal_leaves_at_once() -> None:
    with pytest.raises(Preempted), Stop(lambda line: None):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted), Stop(lambda line: None):
        signal.raise_signal(signal.SIGINT)


def test_the_order_in_which_starting_weights_come_does_not_matter(tmp_path: Path) -> None:
    class Two(Quadratic):
        def make_template(self) -> State:
            shapes = {name: torch.empty(257, device="meta") for name in ("weight", "idle")}
            return State(0, shapes, Momentum(torch.zeros((), dtype=torch.int64, device="meta"), shapes))

    program = Two()
    program.first = lambda: {"idle": torch.zeros(257), "weight": torch.ones(257)}
    assert list(trained(tmp_path, quadratic_plan(steps=1), program=program).params) == ["weight", "idle"]


def poisoned(microbatch: int, row: int) -> tuple[np.ndarray, int]:
    """A text with one poisoned token, so that this row of this micro-batch has it first; and the row's number."""
    number = int(Batches(tokens(), 4, 8, seed=0).find_rows(microbatch, 1)[0][row])
    train = tokens()
    train[number * 8 + 4] = POISON
    return train, number


def test_a_non_finite_loss_stops_the_run_and_names_step_microbatch_and_row(tmp_path: Path) -> None:
    train, number = poisoned(7 * 3 + 1, row=2)
    plan = quadratic_plan()
    with pytest.raises(Diverged) as raised:
        trained(tmp_path, plan, train=train)
    assert raised.value.exit_code == 5
    message = str(raised.value)
    assert "step 8: loss/train is inf; micro-batch 22 has loss inf already at the weights before the step" in message
    assert f"in its rows 2 (rows {number} of the training text)" in message
    reading = read(tmp_path / "journal.jsonl")
    assert list(reading.steps) == list(range(8))
    assert [(event.step, event.name) for event in reading.events] == [(8, "diverged")]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("diverged", 7)


def test_the_weights_before_a_divergence_are_saved_and_finite(tmp_path: Path) -> None:
    train, _ = poisoned(7 * 3, row=0)
    with pytest.raises(Diverged):
        trained(tmp_path, quadratic_plan(), train=train)
    program = Quadratic()
    assert saved_steps(tmp_path) == [5, 7]
    state = checkpoint.load(tmp_path / "checkpoints/step_00000007", program.make_template(), program.device)
    assert all(tensor.isfinite().all() for tensor in trees.name_tensors((state.params, state.optimizer)).values())
    with pytest.raises(Diverged):
        trained(tmp_path, quadratic_plan(), program=program, train=train)
    assert program.steps_taken == 1
    assert len(read(tmp_path / "journal.jsonl").events) == 1
    # With the data mended, the run goes on from there as if nothing had been.
    trained(tmp_path, quadratic_plan())
    assert list(read(tmp_path / "journal.jsonl").steps) == list(range(13))


def test_an_update_that_goes_too_far_is_told_from_bad_data(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"all have a finite loss .* it is the update that went too far"):
        trained(tmp_path, quadratic_plan(), program=Quadratic(learning_rate=1e38))


def test_starting_weights_with_a_non_finite_loss_are_refused(tmp_path: Path) -> None:
    program = Quadratic()
    program.first = lambda: {"weight": torch.full((257,), float("nan"))}
    with pytest.raises(Diverged, match="step 0: loss/held_out is nan; the starting weights are to blame"):
        trained(tmp_path, quadratic_plan(), program=program)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "diverged"


def test_an_observer_that_fails_is_dropped_and_the_run_goes_on(tmp_path: Path) -> None:
    class Broken:
        def hear(self, record: Record) -> None:
            raise OSError("broken pipe")

    heard = Heard()
    with pytest.warns(UserWarning, match="Broken failed and hears no more records: broken pipe"):
        trained(tmp_path, quadratic_plan(), Broken(), heard)
    assert len(heard) == 13


def test_an_observer_hears_only_what_is_already_on_disk(tmp_path: Path) -> None:
    class Reader:
        def hear(self, record: Record) -> None:
            assert read(tmp_path / "journal.jsonl").records[-1] == record

    trained(tmp_path, quadratic_plan(steps=3), Reader())


def test_the_table_is_written_at_every_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        trained(tmp_path, quadratic_plan(), Acting(8, crash))
    assert polars.read_parquet(tmp_path / "metrics.parquet")["step"].to_list() == list(range(6))
