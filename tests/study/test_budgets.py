"""The losses of arms without a target, at equal budgets."""

import json
from pathlib import Path

import pytest
from run_directories import TOKENS, append, begin, experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.comparison import compare
from gnflow.train.run import Run

FALLS = {"fast": [4.9, 4.0, 3.6, 3.4], "slow": [4.9, 4.6, 4.4, 4.2, 4.0, 3.9, 3.8]}
COSTS = {"fast": {"passes": 65, "searched": 0, "flops": 3e12, "seconds": 10.0},
         "slow": {"passes": 1, "searched": 0, "flops": 1e12, "seconds": 2.0}}  # fmt: skip


def run(directory: Path, name: str, seed: int = 0, shift: float = 0.0, **training) -> Run:
    optimizer = "gauss_newton" if name == "fast" else "muon"
    spec = experiment(optimizer, **{"seed": seed, "target": None, **training})
    losses = [round(loss + (shift if step else 0), 6) for step, loss in enumerate(FALLS[name])]
    return Run.load(finished(directory / name / f"seed_{seed}", spec, steps(losses, **COSTS[name]), steps=12))


def test_the_budget_is_the_largest_that_every_run_has_reached(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, "fast"), run(tmp_path, "slow")])
    budgets = {budget.axis: budget for budget in comparison.budgets}
    assert {axis: budget.amount for axis, budget in budgets.items()} == {
        "steps": 3, "passes": 6, "tokens": 3 * TOKENS, "flops": 6e12, "seconds": 12.0,
    }  # fmt: skip
    assert {axis: [arm.median for arm in budget.arms] for axis, budget in budgets.items()} == {
        "steps": [3.4, 4.2],
        "passes": [4.9, 3.8],  # the first step alone takes 65
        "tokens": [3.4, 4.2],
        "flops": [3.6, 3.8],
        "seconds": [4.0, 3.8],
    }
    assert [budget.differences[0].mean for budget in comparison.budgets] == pytest.approx([0.8, -1.1, 0.8, 0.2, -0.2])


def test_with_one_seed_every_axis_is_said_and_no_interval_claimed(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, "fast"), run(tmp_path, "slow")])
    assert comparison.reference == "fast"
    assert comparison.verdict[1:] == (
        "The loss of fast is 0.800 below that of slow at 393k tokens (1 seed: no interval, no tuning recorded).",
        "It is 0.800 below at equal steps, 0.200 below at equal FLOPs, 1.100 above at equal serial passes and "
        "0.200 above at equal seconds.",
    )
    assert any(
        "the last evaluation of fast within the budget of serial passes and seconds" in said
        for said in comparison.warnings
    )


def test_several_seeds_are_paired_and_bring_their_interval(tmp_path: Path) -> None:
    shifts = [0.0, 0.3, -0.1]  # of both arms: paired, the differences are the same
    runs = [run(tmp_path, name, seed, shift) for name in FALLS for seed, shift in enumerate(shifts)]
    [tokens] = [budget for budget in compare(runs).budgets if budget.axis == "tokens"]
    [difference] = tokens.differences
    assert difference.seeds == (0, 1, 2)
    assert difference.mean == pytest.approx(0.8)
    assert difference.interval == pytest.approx((0.8, 0.8))
    assert tokens.arms[0].losses == {0: 3.4, 1: 3.7, 2: 3.3}
    assert "(95 % CI 0.800 to 0.800, 3 seeds, no tuning recorded)" in compare(runs).verdict[1]


def test_an_interval_that_holds_zero_decides_nothing(tmp_path: Path) -> None:
    runs = [run(tmp_path, "fast", seed, shift) for seed, shift in enumerate([0.2, 2.0, -0.3])]
    runs += [run(tmp_path, "slow", seed) for seed in range(3)]
    comparison = compare(runs, reference="slow")
    assert comparison.verdict[1].startswith(
        "3 seeds do not decide whether slow or fast has the lower loss at 393k tokens (95 % CI "
    )
    assert "not decided at equal" in comparison.verdict[2]


def test_arms_without_a_common_seed_are_not_paired(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, "fast", 0), run(tmp_path, "slow", 1)])
    assert comparison.verdict[1:] == ("fast and slow have no seed in common: nothing is paired.",)
    assert comparison.budgets[0].arms[0].losses == {0: 3.4}


def test_a_run_that_has_hardly_begun_is_named_and_nothing_is_compared(tmp_path: Path) -> None:
    append(begin(tmp_path / "young", experiment("adamw", target=None)), steps([4.9]))
    comparison = compare([run(tmp_path, "fast"), Run.load(tmp_path / "young")])
    assert comparison.budgets == ()
    assert comparison.verdict[1:] == ("young has no evaluation after its first step: nothing is compared.",)


def test_one_run_alone_has_its_losses_and_needs_no_verdict(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, "fast")])
    assert comparison.verdict == ()
    assert [budget.arms[0].median for budget in comparison.budgets] == [3.4] * 5


def test_a_schedule_that_has_not_ended_at_the_budget_is_warned_about(tmp_path: Path) -> None:
    spec = experiment({"kind": "muon", "schedule": "cosine"}, target=None)
    decaying = Run.load(finished(tmp_path / "cosine", spec, steps(FALLS["slow"]), steps=6))
    said = compare([decaying, run(tmp_path, "fast")]).warnings
    assert any(
        line.startswith("the learning rate of cosine has not decayed yet at the budget of steps") for line in said
    )
    assert not any("learning rate of fast" in line for line in said)


def test_an_unknown_reference_is_refused_here_too(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no arm `soap`"):
        compare([run(tmp_path, "fast")], reference="soap")


def test_it_is_json(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(compare([run(tmp_path, "fast"), run(tmp_path, "slow")]).to_json(), allow_nan=False))
    assert tree["targets"] == []
    assert tree["budgets"]["tokens"]["budget"] == 3 * TOKENS
    assert tree["budgets"]["tokens"]["arms"]["slow"] == {
        "median": 4.2, "losses": {"0": 4.2}, "spent": {"0": 3 * TOKENS}, "steps": {"0": 3},
    }  # fmt: skip
    assert tree["budgets"]["tokens"]["differences"]["slow"]["mean"] == pytest.approx(0.8)
