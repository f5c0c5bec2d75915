"""Losses at the end of schedules that all spend one budget, and over scales."""

from math import erfc, log
from pathlib import Path

import pytest
from run_directories import TOKENS, end, experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.arms import group_runs
from gnflow.study.below import describe_below, measure_below
from gnflow.study.comparison import Comparison, compare
from gnflow.study.matrix import make_matrix
from gnflow.study.scales import compare_scales, describe_scales
from gnflow.study.token_ratio import estimate_token_ratios
from gnflow.train.run import Run

COUNT = 16
BUDGET = float(COUNT * TOKENS)


def law(tokens: float, factor: float = 1.0) -> float:
    return 2.0 + 3.0 * (factor * tokens / TOKENS) ** -0.5


def run(
    root: Path, name: str, factor: float, seed: int = 0, *, count: int = COUNT, schedule: str = "constant", **plan
) -> Run:
    spec = experiment({"kind": "muon", "schedule": schedule, "momentum": 0.5 + 0.01 * factor}, seed=seed, target=None)
    losses = [8.0, *(law(step * TOKENS, factor) + 0.01 * seed for step in range(1, count + 1))]
    return Run.load(finished(root / name / f"seed_{seed}", spec, steps(losses, searched=0), steps=count, **plan))


def pair(root: Path, **more) -> list[Run]:
    return [
        run(root, name, factor, seed, **more)
        for name, factor in (("muon", 1.0), ("full_gn", 2.0))
        for seed in (0, 1, 2)
    ]


def test_the_loss_at_the_end_is_compared_and_given_as_tokens(tmp_path: Path) -> None:
    comparison = compare(pair(tmp_path), reference="muon", budget=BUDGET)
    [budget] = comparison.budgets
    [difference] = budget.differences
    assert difference.mean == pytest.approx(law(BUDGET, 2.0) - law(BUDGET))
    assert difference.interval == pytest.approx((difference.mean, difference.mean))
    ratio = difference.token_ratio
    assert ratio is not None
    assert ratio.factor == pytest.approx(2.0, rel=1e-3)  # beyond the curve of the reference: by the fit
    assert ratio.extrapolated
    assert "extrapolated by a law" in comparison.verdict[1]
    assert comparison.verdict[0].startswith("The loss of muon is 0.220 above that of full_gn at the end of 2.1M tokens")
    assert comparison.verdict[1].startswith("muon has the loss of full_gn after 2.0 times the tokens (95 % CI ")
    assert not [line for line in comparison.warnings if "budget" in line]
    [within] = compare(pair(tmp_path / "b"), reference="full_gn", budget=BUDGET).budgets[0].differences
    assert within.token_ratio is not None
    assert within.token_ratio.factor == pytest.approx(0.5, rel=1e-2)  # read off its curve, between evaluations
    assert not within.token_ratio.extrapolated


def test_an_unknown_token_ratio_has_a_reason(tmp_path: Path) -> None:
    [reference] = group_runs([run(tmp_path, "muon", 1.0)])
    losses = {"worse": {0: law(TOKENS, 0.5)}, "far": {0: law(BUDGET, 1000.0)}, "unpaired": {5: 3.0}}
    found = estimate_token_ratios(reference, losses, BUDGET)
    assert all(ratio.factor is None and ratio.interval is None for ratio in found.values())
    assert "lower loss at its first evaluation" in str(found["worse"].why_not)
    assert "more than 10 times the tokens" in str(found["far"].why_not)
    assert "no seed in common" in str(found["unpaired"].why_not)


def test_an_arm_with_a_diverged_run_is_left_out(tmp_path: Path) -> None:
    runs = [*pair(tmp_path), run(tmp_path, "adamw", 3.0), run(tmp_path, "adamw", 3.0, 1, count=4)]
    end(runs[-1].directory, steps([8.0, 9.0]), "diverged")
    runs[-1] = Run.load(runs[-1].directory)
    comparison = compare(runs, budget=BUDGET)
    assert comparison.reference == "full_gn"
    assert [reached.arm for reached in comparison.budgets[0].arms] == ["muon", "full_gn"]
    assert (
        "adamw diverged with 1 of 2 seeds and has no loss at the end of the budget: it is left out."
        in comparison.verdict
    )
    named = compare(runs, reference="adamw", budget=BUDGET)
    assert not named.budgets
    assert "nothing is compared to it" in named.verdict[-1]


def test_a_schedule_that_looks_ahead_has_no_token_ratio(tmp_path: Path) -> None:
    [difference] = compare(pair(tmp_path, schedule="cosine"), reference="muon", budget=BUDGET).budgets[0].differences
    assert difference.token_ratio is not None
    assert difference.token_ratio.factor is None
    assert "depends on the length of its run" in str(difference.token_ratio.why_not)


def test_a_known_sigma_makes_a_z_test(tmp_path: Path) -> None:
    comparison = compare(pair(tmp_path), reference="muon", budget=BUDGET, sigma=0.1)
    [difference] = comparison.budgets[0].differences
    half = 1.959964 * 0.1 * (2 / 3) ** 0.5
    assert difference.interval == pytest.approx((difference.mean - half, difference.mean + half), rel=1e-5)
    assert difference.p_value == pytest.approx(0.0071, abs=1e-3)
    assert "z-test with sigma 0.1" in comparison.verdict[0]


def test_the_test_against_a_target_is_that_of_the_formula() -> None:
    z = measure_below("muon", [3.277, 3.279, 3.2785, 3.2775], 3.28, 0.0013)  # z = 2 x 0.002 / 0.0013
    assert (z.mean, z.seeds) == (pytest.approx(3.278), 4)
    assert z.p_value == pytest.approx(erfc(2 * 0.002 / 0.0013 / 2**0.5) / 2)
    assert z.p_value == pytest.approx(0.00105, abs=1e-5)
    assert not z.decided
    assert [measure_below("muon", [loss], 3.28, 0.0013).decided for loss in (3.2759, 3.2761)] == [True, False]
    t = measure_below("muon", [3.0, 3.1, 3.2], 3.4, None)  # t = 3^0.5 x 0.3 / 0.1; 2 degrees of freedom
    assert t.p_value == pytest.approx(0.5 - 27**0.5 / (2 * (2 + 27) ** 0.5))
    assert measure_below("muon", [3.5], 3.28, 0.0013).p_value == pytest.approx(1)
    alone = measure_below("muon", [3.2], 3.28, None)
    assert (alone.p_value, alone.decided) == (None, False)
    assert describe_below(alone, None) == (
        "Whether muon ends below 3.28 is not tested: its loss is 3.2000 (1 seed), and no `sigma` is known."
    )


def test_each_arm_is_tested_against_a_target_beside_a_budget(tmp_path: Path) -> None:
    comparison = compare(pair(tmp_path), [2.6], "muon", budget=BUDGET, sigma=0.02)
    assert "It is not shown that muon ends below 2.60: its loss is 2.7600 (mean of 3 seeds)" in " ".join(
        comparison.verdict
    )
    said = next(line for line in comparison.verdict if line.startswith("full_gn ends below"))
    assert said.startswith("full_gn ends below 2.60: its loss is 2.5403 (mean of 3 seeds); one-sided z-test with sigma")
    [found] = comparison.to_json()["budgets"].values()  # type: ignore[attr-defined]
    assert found["below"]["full_gn"]["decided"]
    assert found["below"]["muon"] == {
        "target": 2.6, "seeds": 3, "mean": pytest.approx(2.76), "p_value": pytest.approx(1), "decided": False,
    }  # fmt: skip
    with pytest.raises(SpecError, match="one target, but 2 are given"):
        compare(pair(tmp_path / "b"), [2.6, 2.5], budget=BUDGET)


def test_the_matrix_shows_losses_differences_tokens_and_costs(tmp_path: Path) -> None:
    matrix = make_matrix(compare(pair(tmp_path), [2.6], "muon", budget=BUDGET, sigma=0.02))
    assert matrix is not None
    assert matrix.title == "held-out loss at the end of 2.1M tokens"
    assert matrix.columns == (
        "loss", "difference", "muon's tokens", "serial passes, k", "FLOPs, T", "device time, s", "p, below 2.60",
    )  # fmt: skip
    best, reference = matrix.rows
    assert [best.arm, reference.arm] == ["full_gn", "muon"]
    assert [cell.value for cell in best.cells[:-1]] == ["2.5403", "-0.220", "2.0 *", "1.04", "24.0", "200"]
    assert best.cells[1].beside == "-0.252 to -0.188"  # 1.96 x 0.02 x (2 / 3)^0.5 on either side
    assert [cell.value for cell in reference.cells] == ["2.7600", "", "1", "1.04", "24.0", "200", "1"]
    assert best.cells[-1].better
    assert not reference.cells[-1].better
    assert any(note.startswith("muon's tokens: how many times the budget it needs") for note in matrix.notes)
    cosine = make_matrix(compare(pair(tmp_path / "b", schedule="cosine"), (), "muon", budget=BUDGET))
    assert cosine is not None
    assert "muon's tokens" not in cosine.columns
    assert any("No ratio of tokens: the schedule of muon depends" in note for note in cosine.notes)


def test_runs_that_end_elsewhere_are_pointed_out(tmp_path: Path) -> None:
    runs = [run(tmp_path, "muon", 1.0), run(tmp_path, "short", 2.0, count=8), run(tmp_path, "short", 2.0, 1)]
    said = " ".join(compare(runs, reference="muon", budget=BUDGET).warnings)
    assert "the seeds of short do not all end at one step: they end at 8 and 16" in said
    assert "the runs of short used 50% of the budget of 2.1M tokens" in said


def at_scale(root: Path, parameters: int, difference: float) -> Comparison:
    runs = []
    for name, shift in (("muon", 0.0), ("full_gn", difference)):
        for seed in (0, 1, 2):
            spec = experiment({"kind": "muon", "momentum": 0.5 if shift else 0.6}, seed=seed, target=None)
            last = 1.5 + 40 * parameters**-0.3 + shift + 0.002 * (seed - 1)
            runs.append(
                Run.load(
                    finished(
                        root / f"{name}_{parameters}" / f"seed_{seed}", spec, steps([8.0, last]), parameters=parameters
                    )
                )
            )
    return compare(runs, reference=f"muon_{parameters}", budget=float(TOKENS + 16_384))


def test_over_scales_a_law_is_fitted_and_the_difference_has_a_trend(tmp_path: Path) -> None:
    sizes = (50_000, 200_000, 1_000_000)
    comparisons = {f"n{size}": at_scale(tmp_path, size, -0.05 * log(size / 1e4) / log(10)) for size in sizes}
    methods = {f"{name}_{size}": name for name in ("muon", "full_gn") for size in sizes}
    found = compare_scales(comparisons, methods, "muon")
    assert found.measure == "parameters"
    assert found.sizes == {f"n{size}": size for size in sizes}
    assert found.law is not None
    assert found.law.factors["full_gn"] > 1
    [trend] = found.trends
    assert trend.slope == pytest.approx(-0.05)  # nats for ten times the parameters
    assert any("falls with size: -0.050 nats for ten times the parameters" in line for line in describe_scales(found))
    with pytest.raises(SpecError, match="do not differ in tokens"):
        compare_scales(comparisons, methods, "muon", "tokens")
    two = {name: comparisons[name] for name in list(comparisons)[:2]}
    assert "losses at 2 sizes" in str(compare_scales(two, methods, "muon").why_not)


def test_the_law_is_drawn(tmp_path: Path) -> None:
    from gnflow.study.report import assets
    from gnflow.study.report.charts.law import draw_law

    sizes = (50_000, 200_000, 1_000_000)
    comparisons = {f"n{size}": at_scale(tmp_path, size, -0.1) for size in sizes}
    methods = {f"{name}_{size}": name for name in ("muon", "full_gn") for size in sizes}
    picture = assets.draw_svg(draw_law(compare_scales(comparisons, methods, "muon")))
    assert picture.count("mark-area") == 2  # a band for each method
    assert "held-out loss at the end" in picture
