import json
from dataclasses import replace
from pathlib import Path

import pytest
from arms import arm
from run_directories import end, experiment, finished, steps

from gnflow.spec.experiment import Experiment
from gnflow.study.arms import group_runs
from gnflow.study.fairness import warn_of_differences
from gnflow.train.run import Run

LOSSES = [4.9, 4.0, 3.3]


# The method under study, by directory: what differs besides is what is told.
OPTIMIZERS = {"one": "muon", "two": "adamw", "three": "soap", "close": "rmnp"}


def run(directory: Path, losses=LOSSES, plan: dict | None = None, trials: int = 4, **training) -> Run:
    spec = experiment(OPTIMIZERS[directory.name], **training).model_dump(mode="json")
    spec = Experiment.model_validate(spec | {"tuning": {"trials": trials}})
    return Run.load(finished(directory, spec, steps(losses), **(plan or {})))


def told(*runs: Run) -> list[str]:
    return list(warn_of_differences(group_runs(runs)))


def test_runs_that_differ_in_the_optimizer_alone_can_be_compared(tmp_path: Path) -> None:
    runs = run(tmp_path / "one"), run(tmp_path / "two", [4.9, 3.2], steps=40, checkpoint_every=7)
    assert told(*runs) == []


@pytest.mark.parametrize(
    ("training", "key", "values"),
    [
        ({"rows": 64}, "training.rows", "32 in one; 64 in two"),
        ({"start": "scratch"}, "training.start.kind", "warmup in one; scratch in two"),
        ({"precision": "bfloat16"}, "training.precision", "float32 in one; bfloat16 in two"),
        ({"evaluate_every": 5}, "training.evaluate_every", "1 in one; 5 in two"),
    ],
)
def test_other_differences_are_named_with_their_values(tmp_path: Path, training: dict, key: str, values: str) -> None:
    found = told(run(tmp_path / "one"), run(tmp_path / "two", **training))
    assert f"the runs differ in `{key}`: {values}" in found


def test_a_third_run_is_grouped_with_the_one_it_agrees_with(tmp_path: Path) -> None:
    runs = run(tmp_path / "one"), run(tmp_path / "two", rows=8), run(tmp_path / "three")
    assert told(*runs) == ["the runs differ in `training.rows`: 32 in one, three; 8 in two"]


def test_models_of_another_size_are_noticed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    spec = json.loads((two.directory / "experiment.yaml").read_text())
    spec["model"]["width"] = 128
    (two.directory / "experiment.yaml").write_text(json.dumps(spec))
    assert told(one, Run.load(two.directory)) == ["the runs differ in `model.width`: 64 in one; 128 in two"]


def test_many_differences_are_summed_up(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    two = run(tmp_path / "two", rows=8, precision="tf32", evaluate_every=2, start="scratch")
    spec = json.loads((two.directory / "experiment.yaml").read_text())
    spec["model"] |= {"width": 128, "layers": 5, "heads": 8, "norm_epsilon": 1e-5}
    (two.directory / "experiment.yaml").write_text(json.dumps(spec))
    assert any("further values" in line for line in told(one, Run.load(two.directory)))


@pytest.mark.parametrize(
    ("plan", "fact"),
    [
        ({"step": {"tokens/solve": 65536}}, "the tokens that one step solves on: 131072 in one; 65536 in two"),
        ({"device": "cuda"}, "the device (matters for seconds only): cpu in one; cuda in two"),
        ({"attention": "flash"}, "the attention kernel (matters for seconds only): plain in one; flash in two"),
        (
            {"recomputed": True},
            "whether blocks are recomputed to save memory (matters for seconds and FLOPs only): no in one; yes in two",
        ),
    ],
)
def test_what_only_the_plan_knows_is_compared_too(tmp_path: Path, plan: dict, fact: str) -> None:
    same = {"step": {"tokens/solve": 131072}, "device": "cpu", "attention": "plain"}
    assert told(run(tmp_path / "one", plan=same), run(tmp_path / "two", plan=same | plan)) == [
        f"the runs differ in {fact}"
    ]


def test_the_same_spec_on_other_data_is_noticed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    (two.directory / "provenance.json").write_text(json.dumps({"digests": {"data": "e" * 64}}))
    assert told(one, two) == [f"the runs differ in the data that was prepared: {'d' * 12} in one; {'e' * 12} in two"]


def test_another_processor_is_noticed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    for which, threads in ((one, 2), (two, 4)):
        path = which.directory / "provenance.json"
        session = {"device": "cpu", "processor": "Zen", "threads": threads}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sessions": [session]}))
    assert told(one, two) == [
        "the runs differ in the device (matters for seconds only): Zen, 2 threads in one; Zen, 4 threads in two"
    ]


def test_starts_that_are_measured_apart_are_noticed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two", losses=[4.95, *LOSSES[1:]])
    assert told(one, two) == ["the runs differ in the loss they start from: 4.9000 in one; 4.9500 in two"]
    close = run(tmp_path / "close", losses=[4.90001, *LOSSES[1:]])
    assert told(one, close) == []


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    end(two.directory, steps(LOSSES), "preempted")
    assert told(one, Run.load(two.directory)) == ["two is preempted"]


def test_seeds_are_told_only_when_the_sets_differ(tmp_path: Path) -> None:
    muon, adamw = arm(tmp_path / "muon", [3, 3, 3]), arm(tmp_path / "adamw", [3, 3, 3], "adamw")
    assert told(*muon, *adamw[::-1]) == []
    assert told(*muon, *adamw[:2]) == ["the runs differ in seeds: 0, 1, 2 in muon; 0, 1 in adamw"]


def test_a_difference_is_told_once_for_all_seeds_of_an_arm(tmp_path: Path) -> None:
    muon, adamw = arm(tmp_path / "muon", [3, 3]), arm(tmp_path / "adamw", [3, 3], "adamw")
    for run in adamw:
        (run.directory / "provenance.json").write_text(json.dumps({"digests": {"data": "e" * 64}}))
    assert told(*muon, *adamw) == [
        f"the runs differ in the data that was prepared: {'d' * 12} in muon; {'e' * 12} in adamw"
    ]


def test_runs_of_one_arm_that_differ_are_named_by_seed(tmp_path: Path) -> None:
    muon, adamw = arm(tmp_path / "muon", [3, 3]), arm(tmp_path / "adamw", [3, 3], "adamw")
    (muon[1].directory / "provenance.json").write_text(json.dumps({"digests": {"data": "e" * 64}}))
    assert told(*muon, *adamw) == [
        f"the runs differ in the data that was prepared: {'d' * 12} in muon (seed 0), adamw; "
        f"{'e' * 12} in muon (seed 1)"
    ]
    end(muon[0].directory, steps(LOSSES), "preempted")
    assert told(Run.load(muon[0].directory), muon[1])[-1] == "muon (seed 0) is preempted"


def test_starts_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """Each seed has its own start; with seed 1 adamw began from another."""

    def runs(name: str, starts: list[float]) -> list[Run]:
        return [
            Run.load(finished(tmp_path / name / f"seed_{seed}", experiment(name, seed=seed), steps([start, 3.3])))
            for seed, start in enumerate(starts)
        ]

    untold = "no tuning is recorded for any arm (`tuning.trials` is 0): a difference may be one of tuning"
    assert told(*runs("muon", [4.9, 4.7]), *runs("adamw", [4.9, 4.7])) == [untold]
    assert told(*runs("muon", [4.9, 4.7]), *runs("soap", [4.9, 4.8])) == [
        untold,
        "the runs differ in the loss they start from with seed 1: 4.7000 in muon; 4.8000 in soap",
    ]


def test_unequal_tuning_is_told_with_its_numbers_and_none_at_all_too(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", trials=8), run(tmp_path / "two", trials=2)
    assert told(one, two, run(tmp_path / "three", trials=8)) == [
        "the runs differ in tuning trials: 8 in one, three; 2 in two"
    ]
    none = [run(tmp_path / "untuned" / name, trials=0) for name in ("one", "two")]
    assert told(*none) == [
        "no tuning is recorded for any arm (`tuning.trials` is 0): a difference may be one of tuning"
    ]
    assert told(none[0]) == []


@pytest.mark.parametrize(("refused", "warned"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_run_that_refused_most_of_its_steps_is_told(tmp_path: Path, refused: int, warned: bool) -> None:
    first, *others = steps([4.9, 4.8, 4.7, 4.6, 4.5])
    taken = [replace(step, values={**step.values, "gn/alpha": 0.0 if step.step <= refused else 0.5}) for step in others]
    spec = experiment("muon", seed=2)
    slow = Run.load(finished(tmp_path / "two", spec, [first, *taken]))
    well = Run.load(finished(tmp_path / "one", experiment("muon", seed=1), steps([4.9, 4.0])))
    text = f"one+two (seed 2) refused {refused} of 4 steps, which left its weights as they were"
    assert [found for found in told(well, slow) if "refused" in found] == [text] * warned


def test_a_run_that_ended_on_its_own_target_has_not_missed_a_lower_one(tmp_path: Path) -> None:
    reached, missed = run(tmp_path / "one", [4.9, 3.39]), run(tmp_path / "two", [4.9, 3.6])
    assert list(warn_of_differences(group_runs([reached, missed]), [3.4, 3.2])) == [
        "one stops on reaching 3.40, so its miss of 3.20 says nothing"
    ]
