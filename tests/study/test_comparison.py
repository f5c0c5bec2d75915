import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from run_directories import TOKENS, experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.comparison import compare
from gnflow.train.journal import Step
from gnflow.train.run import Run

Arm = Callable[..., Run]


@pytest.fixture
def arm(tmp_path: Path) -> Arm:
    """A finished run with these held-out losses."""

    def made(name: str, losses: Sequence[float], optimizer: str = "muon", training: dict | None = None, **costs) -> Run:
        spec = experiment(optimizer, **(training or {}))
        return Run.load(finished(tmp_path / name, spec, steps(losses, **costs)))

    return made


FAST, SLOW = [4.9, 3.9, 3.5, 3.35, 3.2], [4.9, 4.4, 4.0, 3.8, 3.7, 3.6, 3.55, 3.5, 3.45, 3.42, 3.41, 3.405, 3.39]


@pytest.fixture
def full_gn(arm: Arm) -> Run:
    return arm("full_gn", FAST, "gauss_newton", passes=65, searched=TOKENS // 8, flops=3e12, seconds=10.0)


@pytest.fixture
def muon(arm: Arm) -> Run:
    return arm("muon", SLOW, passes=1, searched=0, flops=1e12, seconds=6.0)


def test_the_first_evaluation_at_the_target_is_what_counts(full_gn: Run) -> None:
    [score] = compare([full_gn], 3.35).scores
    assert score.needed == {
        "steps": 3,
        "passes": 195,
        "tokens": 3 * TOKENS * 9 // 8,
        "tokens/solve": 3 * TOKENS,
        "tokens/search": 3 * TOKENS // 8,
        "flops": 9e12,
        "seconds": 30.0,
    }
    assert (score.start, score.best, score.spent["steps"]) == (4.9, 3.2, 4)


def test_the_target_is_that_of_the_specs_unless_given(full_gn: Run, muon: Run) -> None:
    assert compare([full_gn, muon]).target == 3.4
    assert [score.needed and score.needed["steps"] for score in compare([full_gn, muon]).scores] == [3, 12]
    assert [score.needed and score.needed["steps"] for score in compare([full_gn, muon], 3.9).scores] == [1, 3]


def test_runs_without_a_common_target_need_one(arm: Arm, full_gn: Run) -> None:
    other = arm("other", SLOW, training={"target": {"at_most": 3.0}})
    none = arm("none", SLOW, training={"target": None})
    with pytest.raises(SpecError, match=r"found: 3 and 3\.4.*--target"):
        compare([full_gn, other])
    with pytest.raises(SpecError, match="found: none"):
        compare([none])
    assert compare([full_gn, other, none], 3.5).target == 3.5


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_verdict_names_every_axis_whatever_the_order(full_gn: Run, muon: Run, order: list[int]) -> None:
    comparison = compare([[full_gn, muon][index] for index in order])
    [ratio] = comparison.ratios
    assert (ratio.leader, ratio.other, ratio.at_least) == ("full_gn", "muon", False)
    assert ratio.factors == pytest.approx(
        {"steps": 4, "passes": 12 / 195, "tokens": 12 / (3 * 9 / 8), "flops": 12 / 9, "seconds": 72 / 30}
    )
    assert comparison.verdict == (
        "full_gn needs 4.0x fewer steps, 3.6x fewer tokens, 1.3x fewer FLOPs and 2.4x fewer seconds than muon, "
        "but 16x more serial passes.",
    )


def test_what_is_alike_is_called_alike(arm: Arm) -> None:
    one = arm("one", FAST, seconds=10.0)
    two = arm("two", FAST, seconds=20.0)
    assert compare([one, two]).verdict == (
        "one needs 2.0x fewer seconds than two; about as many steps, serial passes, tokens and FLOPs.",
    )


def test_a_missed_target_bounds_the_ratio_from_below(full_gn: Run, muon: Run) -> None:
    comparison = compare([full_gn, muon], 3.36)
    assert comparison.scores[1].needed is None
    assert comparison.ratios[0].at_least
    assert comparison.verdict == (
        "muon has not reached 3.36 in 12 steps (best 3.3900): full_gn needs at least 4.0x fewer steps, "
        "3.6x fewer tokens, 1.3x fewer FLOPs and 2.4x fewer seconds.",
    )


def test_a_run_that_has_hardly_begun_proves_nothing(arm: Arm, full_gn: Run) -> None:
    young = arm("young", SLOW[:2], passes=1, searched=0, seconds=6.0)
    assert compare([full_gn, young]).verdict == ("young has not reached 3.4 in 1 steps (best 4.4000).",)


def test_no_run_at_the_target_is_said(full_gn: Run, muon: Run) -> None:
    comparison = compare([full_gn, muon], 1.0)
    assert comparison.verdict == ("No run has reached 1.",)
    assert comparison.ratios == ()


def test_a_target_at_the_start_costs_nothing(full_gn: Run, muon: Run) -> None:
    comparison = compare([full_gn, muon], 5.0)
    assert [score.needed and score.needed["steps"] for score in comparison.scores] == [0, 0]
    assert comparison.ratios == ()
    assert "The starting weights of full_gn are at 5 already: nothing is compared." in comparison.verdict


def test_a_run_that_never_measured_the_loss_proves_nothing(arm: Arm, full_gn: Run, tmp_path: Path) -> None:
    blind = [Step(step.step, step.time, {"tokens/total": step.values["tokens/total"]}) for step in steps(FAST)]
    run = Run.load(finished(tmp_path / "blind", experiment(), blind))
    comparison = compare([full_gn, run])
    assert comparison.ratios == ()
    assert comparison.verdict == ("blind was never evaluated on held-out text.",)


def test_a_missed_target_is_bounded_by_the_last_evaluation(full_gn: Run, tmp_path: Path) -> None:
    records = steps([5.0, 4.9, 4.8, 4.7, 4.6])
    unmeasured = [
        Step(r.step, r.time, {k: v for k, v in r.values.items() if k != "loss/held_out"}) for r in records[3:]
    ]
    run = Run.load(finished(tmp_path / "cut", experiment(), [*records[:3], *unmeasured]))
    [ratio] = compare([full_gn, run]).ratios
    assert ratio.at_least
    assert compare([full_gn, run]).scores[1].spent["steps"] == 2


def test_costs_that_were_not_recorded_come_from_the_plan(tmp_path: Path) -> None:
    bare = [
        step.__class__(step.step, step.time, {"loss/held_out": step.values["loss/held_out"]}) for step in steps(FAST)
    ]
    plan = {"tokens/solve": 100, "tokens/search": 10, "tokens/total": 110, "passes/serial": 7, "flops": 1000}
    run = Run.load(finished(tmp_path / "bare", experiment(), bare, step=plan))
    [score] = compare([run]).scores
    expected = {"steps": 3, "passes": 21, "tokens": 330, "tokens/solve": 300, "tokens/search": 30, "flops": 3000}
    assert score.needed == {**expected, "seconds": 0.0}


def test_steps_without_an_evaluation_are_passed_over(tmp_path: Path) -> None:
    records = steps(FAST)
    unseen = dict(records[3].values)
    del unseen["loss/held_out"]
    records[3] = records[3].__class__(3, records[3].time, unseen)
    run = Run.load(finished(tmp_path / "seldom", experiment(), records))
    assert compare([run]).scores[0].needed == compare([run], 3.2).scores[0].needed


def test_two_directories_of_one_name_are_told_apart(arm: Arm, tmp_path: Path) -> None:
    one, two = arm("a/run", FAST), arm("b/run", FAST)
    assert [score.name for score in compare([one, two]).scores] == [str(tmp_path / "a/run"), str(tmp_path / "b/run")]


def test_it_is_plain_json(full_gn: Run, muon: Run) -> None:
    tree = json.loads(json.dumps(compare([full_gn, muon], 3.36).to_json()))
    assert tree["metric"] == "loss/held_out"
    assert tree["scores"][0]["needed"]["steps"] == 3
    assert tree["scores"][1]["needed"] is None
    assert tree["ratios"][0]["factors"]["steps"] == 4
