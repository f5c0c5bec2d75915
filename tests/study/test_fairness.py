import json
from pathlib import Path

import pytest
from run_directories import end, experiment, finished, steps

from gnflow.study.fairness import warnings
from gnflow.train.run import Run

LOSSES = [4.9, 4.0, 3.3]


def run(directory: Path, optimizer: str = "muon", losses=LOSSES, plan: dict | None = None, **training) -> Run:
    return Run.load(finished(directory, experiment(optimizer, **training), steps(losses), **(plan or {})))


def told(*runs: Run) -> list[str]:
    return list(warnings(runs, [run.directory.name for run in runs]))


def test_runs_that_differ_in_the_optimizer_alone_can_be_compared(tmp_path: Path) -> None:
    runs = run(tmp_path / "one"), run(tmp_path / "two", "gauss_newton", [4.9, 3.2], steps=40, checkpoint_every=7)
    assert told(*runs) == []


@pytest.mark.parametrize(
    ("training", "key", "values"),
    [
        ({"seed": 1}, "training.seed", "0 in one; 1 in two"),
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
    runs = run(tmp_path / "one"), run(tmp_path / "two", seed=1), run(tmp_path / "three")
    assert told(*runs) == ["the runs differ in `training.seed`: 0 in one, three; 1 in two"]


def test_models_of_another_size_are_noticed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    spec = json.loads((two.directory / "experiment.yaml").read_text())
    spec["model"]["width"] = 128
    (two.directory / "experiment.yaml").write_text(json.dumps(spec))
    assert told(one, Run.load(two.directory)) == ["the runs differ in `model.width`: 64 in one; 128 in two"]


def test_many_differences_are_summed_up(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    two = run(tmp_path / "two", seed=1, rows=8, precision="tf32", evaluate_every=2)
    spec = json.loads((two.directory / "experiment.yaml").read_text())
    spec["model"] |= {"width": 128, "layers": 5, "heads": 8, "norm_epsilon": 1e-5}
    (two.directory / "experiment.yaml").write_text(json.dumps(spec))
    assert any("in 2 further values" in line for line in told(one, Run.load(two.directory)))


@pytest.mark.parametrize(
    ("plan", "fact"),
    [
        ({"step": {"tokens/solve": 65536}}, "the tokens that one step solves on: 131072 in one; 65536 in two"),
        ({"device": "cuda"}, "the device (matters for seconds only): cpu in one; cuda in two"),
        ({"attention": "flash"}, "the attention kernel (matters for seconds only): plain in one; flash in two"),
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
