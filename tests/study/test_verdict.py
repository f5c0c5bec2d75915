"""What is said, word for word."""

from dataclasses import replace
from pathlib import Path

import pytest
from arms import TARGET, arm, run
from run_directories import TOKENS, experiment, finished, steps

from gnflow.study.comparison import compare
from gnflow.train.run import Run


@pytest.fixture
def verdict(tmp_path: Path):
    """The sentences about full_gn and muon by the steps that they need with each seed."""

    def said(full_gn: list[int | None], muon: list[int | None], targets=(), trials=(8, 8), reference=None, **costs):
        ours = arm(tmp_path / "full_gn", full_gn, "gauss_newton", trials[0])
        theirs = arm(tmp_path / "muon", muon, "muon", trials[1], **({"passes": 1, "searched": 0} | costs))
        return list(compare(ours + theirs, targets, reference).verdict)

    return said


def test_a_difference_comes_with_its_interval_seeds_and_tuning(verdict) -> None:
    assert verdict([8, 8, 8], [42, 44, 46], seconds=4.0) == [
        "full_gn needs 5.5x fewer steps than muon to 3.40 (95 % CI 4.9 to 6.2, 3 seeds, 8 trials each).",
        "full_gn needs 4.9x fewer tokens (4.4 to 5.5), 5.5x fewer FLOPs (4.9 to 6.2) and 1.8x fewer seconds "
        "(1.57 to 1.97), but 12x more serial passes (11 to 13).",
    ]


def test_what_goes_against_the_reference_is_said_of_it(verdict) -> None:
    assert verdict([8, 8, 8], [42, 44, 46], reference="muon", seconds=4.0) == [
        "muon needs 5.5x more steps than full_gn to 3.40 (95 % CI 4.9 to 6.2, 3 seeds, 8 trials each).",
        "muon needs 12x fewer serial passes (11 to 13), but 4.9x more tokens (4.4 to 5.5), 5.5x more FLOPs "
        "(4.9 to 6.2) and 1.8x more seconds (1.57 to 1.97).",
    ]


def test_an_interval_that_crosses_one_decides_nothing(verdict) -> None:
    """Ratios of 2, 4 and 8 in steps, and 1/4, 1/2 and 1 in seconds."""
    assert verdict([2, 2, 2], [4, 8, 16], trials=(0, 0), seconds=12.5 / 8) == [
        "3 seeds do not decide whether full_gn or muon needs fewer steps to 3.40 "
        "(95 % CI 1.40x more to 22x fewer, no tuning recorded).",
        "full_gn needs 16x more serial passes (2.9 to 91); not decided: tokens (1.57x more to 20x fewer), "
        "FLOPs (1.40x more to 22x fewer) and seconds (11x more to 2.8x fewer).",
    ]


def test_equal_arms_are_called_alike(verdict) -> None:
    assert verdict([4, 5, 6], [4, 5, 6], passes=65, searched=16_384) == [
        "full_gn needs about as many steps as muon to 3.40 (the same with each seed, 3 seeds, 8 trials each).",
        "About as many serial passes (the same with each seed), tokens (the same with each seed), "
        "FLOPs (the same with each seed) and seconds (the same with each seed).",
    ]


def test_a_small_difference_is_not_called_alike_unless_the_interval_is_small_too(verdict) -> None:
    [steps, *_] = verdict([10, 10, 10], [8, 10, 12], targets=[TARGET])
    assert steps.startswith("3 seeds do not decide whether")


def test_misses_are_counted_and_bound_the_ratio(verdict) -> None:
    assert verdict([2, 2, 2], [None, 19, None])[:2] == [
        "muon missed 3.40 with 2 of 3 seeds.",
        "full_gn needs at least 9.8x fewer steps than muon to 3.40 (95 % CI 9.1 or more, 3 seeds, 8 trials each).",
    ]


def test_misses_of_a_named_reference_bound_it_from_the_other_side(verdict) -> None:
    assert verdict([2, 2, 2], [None, 19, None], reference="muon")[:2] == [
        "muon missed 3.40 with 2 of 3 seeds.",
        "muon needs at least 9.8x more steps than full_gn to 3.40 (95 % CI 9.1 or more, 3 seeds, 8 trials each).",
    ]


def test_misses_on_both_sides_decide_nothing(verdict) -> None:
    assert verdict([None, 2], [19, None])[:3] == [
        "full_gn missed 3.40 with 1 of 2 seeds.",
        "muon missed 3.40 with 1 of 2 seeds.",
        "2 seeds do not decide whether full_gn or muon needs fewer steps to 3.40 "
        "(95 % CI open on both sides, 8 trials each).",
    ]


def test_unequal_tuning_is_said(verdict) -> None:
    [steps, _, tuning] = verdict([8, 8], [44, 44], trials=(8, 1))
    assert steps == (
        "full_gn needs 5.5x fewer steps than muon to 3.40 (the same with each seed, 2 seeds, 8 trials against 1)."
    )
    assert (
        tuning == "Tuning was unequal (8 trials for full_gn and 1 trial for muon): part of a difference may be tuning."
    )


def test_arms_without_a_common_seed_are_not_paired(tmp_path: Path) -> None:
    runs = [run(tmp_path / "full_gn", 4, 0, "gauss_newton"), run(tmp_path / "muon", 8, 1)]
    assert compare(runs).verdict == ("full_gn and muon have no seed in common: nothing is paired.",)


def test_a_target_that_none_reached_is_said_and_the_next_is_compared(verdict) -> None:
    assert verdict([2, 2], [8, 8], targets=[3.4, 3.0])[:2] == [
        "No run has reached 3.00.",
        "full_gn needs 4.0x fewer steps than muon to 3.40 (the same with each seed, 2 seeds, 8 trials each).",
    ]


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_order_that_another_target_reverses_is_said(tmp_path: Path, seeds: int) -> None:
    courses = {"early": ("muon", [4.4, 3.8, 3.7, 3.6, 3.5, 3.4]), "late": ("adamw", [4.4, 4.2, 3.4])}
    runs = [
        Run.load(finished(tmp_path / name / f"seed_{seed}", experiment(optimizer, seed=seed), steps(losses)))
        for name, (optimizer, losses) in courses.items()
        for seed in range(seeds)
    ]
    sentences = compare(runs, [3.9, 3.4]).verdict
    if seeds == 2:
        assert sentences[0].startswith(
            "late needs 2.5x fewer steps than early to 3.40 (the same with each seed, 2 seeds"
        )
        assert sentences[-1] == (
            "It is the other way round to 3.90: late needs 2.0x more steps than early to 3.90 "
            "(the same with each seed, 2 seeds, no tuning recorded)."
        )
    else:
        assert sentences[-1].startswith("It is the other way round to 3.90: late needs no less of anything than early")


# One seed: the whole in one sentence.


@pytest.fixture
def full_gn(tmp_path: Path) -> Run:
    records = steps([4.9, 3.9, 3.5, 3.35, 3.2], passes=65, searched=TOKENS // 8, flops=3e12, seconds=10.0)
    return Run.load(finished(tmp_path / "full_gn", experiment(), records))


@pytest.fixture
def muon(tmp_path: Path) -> Run:
    losses = [4.9, 4.4, 4.0, 3.8, 3.7, 3.6, 3.55, 3.5, 3.45, 3.42, 3.41, 3.405, 3.39]
    records = steps(losses, passes=1, searched=0, flops=1e12, seconds=6.0)
    return Run.load(finished(tmp_path / "muon", experiment("muon"), records))


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_one_seed_names_every_axis_whatever_the_order(full_gn: Run, muon: Run, order: list[int]) -> None:
    assert compare([[full_gn, muon][index] for index in order]).verdict == (
        "full_gn needs 4.0x fewer steps, 3.6x fewer tokens, 1.3x fewer FLOPs and 2.4x fewer seconds than muon to 3.40, "
        "but 16x more serial passes (1 seed: no interval; no tuning recorded).",
    )


def test_what_is_alike_with_one_seed_is_called_alike(verdict) -> None:
    assert verdict([4], [4], passes=65, searched=16_384, seconds=25.0) == [
        "full_gn needs 2.0x fewer seconds than muon to 3.40; about as many steps, serial passes, tokens and FLOPs "
        "(1 seed: no interval; 8 trials each)."
    ]


def test_a_miss_with_one_seed_bounds_the_ratio_from_below(full_gn: Run, muon: Run) -> None:
    assert compare([full_gn, muon], [3.36]).verdict == (
        "muon has not reached 3.36 in 12 steps (best 3.3900): full_gn needs at least 4.0x fewer steps, "
        "3.6x fewer tokens, 1.3x fewer FLOPs and 2.4x fewer seconds (1 seed: no interval; no tuning recorded).",
    )


def test_a_miss_of_the_reference_is_not_held_against_the_other(full_gn: Run, muon: Run) -> None:
    assert compare([full_gn, muon], [3.36], "muon").verdict == (
        "muon has not reached 3.36 in 12 steps (best 3.3900).",
        "muon needs at least 4.0x more steps, 3.6x more tokens, 1.3x more FLOPs and 2.4x more seconds than full_gn "
        "to 3.36 (1 seed: no interval; no tuning recorded).",
    )


def test_a_run_that_has_hardly_begun_proves_nothing(full_gn: Run, tmp_path: Path) -> None:
    records = steps([4.9, 4.4], passes=1, searched=0, seconds=6.0)
    young = Run.load(finished(tmp_path / "young", experiment("muon"), records))
    assert compare([full_gn, young]).verdict == ("young has not reached 3.40 in 1 step (best 4.4000).",)


def test_no_run_at_the_target_is_said(full_gn: Run, muon: Run) -> None:
    comparison = compare([full_gn, muon], [1.0])
    assert comparison.verdict == ("No run has reached 1.00.",)
    assert (comparison.reference, comparison.ratios) == (None, ())


def test_a_target_at_the_start_costs_nothing(full_gn: Run, muon: Run) -> None:
    assert compare([full_gn, muon], [5.0]).verdict == (
        "The starting weights of full_gn are at 5.00 already: nothing is compared.",
        "The starting weights of muon are at 5.00 already: nothing is compared.",
    )


def test_a_run_that_never_measured_the_loss_proves_nothing(full_gn: Run, tmp_path: Path) -> None:
    blind = [replace(step, values={"tokens/total": step.values["tokens/total"]}) for step in steps([4.9, 3.3])]
    run = Run.load(finished(tmp_path / "blind", experiment("muon"), blind))
    assert compare([full_gn, run]).verdict == ("blind was never evaluated on held-out text.",)


def test_one_run_alone_needs_no_verdict(full_gn: Run) -> None:
    assert compare([full_gn]).verdict == ()
