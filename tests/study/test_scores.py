from dataclasses import replace
from pathlib import Path

from run_directories import TOKENS, experiment, finished, steps

from gnflow.study.scores import score_run
from gnflow.train.run import Run

LOSSES = [4.9, 3.9, 3.5, 3.35, 3.2]


def test_the_first_evaluation_at_the_target_is_what_counts(tmp_path: Path) -> None:
    records = steps(LOSSES, passes=65, searched=TOKENS // 8, flops=3e12, seconds=10.0)
    found = score_run(Run.load(finished(tmp_path / "full_gn", experiment(), records)), "full_gn", 3.35)
    assert found.needed == {
        "steps": 3,
        "passes": 195,
        "tokens": 3 * TOKENS * 9 // 8,
        "tokens/solve": 3 * TOKENS,
        "tokens/search": 3 * TOKENS // 8,
        "flops": 9e12,
        "seconds": 30.0,
        "device_seconds": 30.0,
    }
    assert (found.start, found.best, found.spent["steps"]) == (4.9, 3.2, 4)


def test_costs_that_were_not_recorded_come_from_the_plan(tmp_path: Path) -> None:
    bare = [replace(step, values={"loss/held_out": step.values["loss/held_out"]}) for step in steps(LOSSES)]
    plan = {"tokens/solve": 100, "tokens/search": 10, "tokens/total": 110, "passes/serial": 7, "flops": 1000}
    found = score_run(Run.load(finished(tmp_path / "bare", experiment(), bare, step=plan)), "bare", 3.4)
    expected = {"steps": 3, "passes": 21, "tokens": 330, "tokens/solve": 300, "tokens/search": 30, "flops": 3000}
    assert found.needed == {**expected, "seconds": 0.0, "device_seconds": 0.0}


def test_steps_without_an_evaluation_are_passed_over(tmp_path: Path) -> None:
    records = steps(LOSSES)
    records[3] = replace(records[3], values={k: v for k, v in records[3].values.items() if k != "loss/held_out"})
    run = Run.load(finished(tmp_path / "seldom", experiment(), records))
    assert score_run(run, "seldom", 3.4).needed == score_run(run, "seldom", 3.2).needed


def test_a_missed_target_has_cost_what_the_last_evaluation_had(tmp_path: Path) -> None:
    records = steps([5.0, 4.9, 4.8, 4.7, 4.6])
    records[3:] = [replace(r, values={k: v for k, v in r.values.items() if k != "loss/held_out"}) for r in records[3:]]
    found = score_run(Run.load(finished(tmp_path / "cut", experiment(), records)), "cut", 3.4)
    assert found.needed is None
    assert found.spent["steps"] == 2
