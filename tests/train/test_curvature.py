from pathlib import Path

import pytest
import tiny
from acting import Crash, at
from equal_runs import assert_equal_but_for_clocks

from gnflow.spec.experiment import Experiment
from gnflow.train.loop import run
from gnflow.train.run import Run
from gnflow.workspace import Workspace

METRIC = {"kind": "curvature", "every": 2, "iterations": 4, "eigenvalues": 2, "probes": 1}
SOAP = {"kind": "soap", "microbatches": 2}
PARAMS = "model/params.safetensors"


def experiment(optimizer: str, *metrics: dict[str, object], **training: object) -> Experiment:
    tree = tiny.tiny("adamw" if optimizer == "soap" else optimizer, **training)
    if optimizer == "soap":
        tree["optimizer"] = SOAP
    tree["metrics"] = [*tree["metrics"], *metrics]  # type: ignore[misc]
    return Experiment.model_validate(tree)


@pytest.mark.parametrize("optimizer", ["soap", "gauss_newton"])
def test_weights_are_the_same_without_it_and_a_killed_run_ends_as_an_untouched_one(
    optimizer: str, tmp_path: Path
) -> None:
    workspace = Workspace(tiny.write_project(tmp_path / "project"))
    plain = run(experiment(optimizer, steps=5), workspace, tmp_path / "plain")
    declared = experiment(optimizer, METRIC, steps=5)
    untouched = run(declared, workspace, tmp_path / "untouched")
    # The checkpoint is of step 2, the measurement of step 4: its update starts in another process.
    with pytest.raises(Crash):
        run(declared, workspace, tmp_path / "again", watches=[at(3)])
    again = run(declared, workspace, tmp_path / "again")
    assert_equal_but_for_clocks(again.directory, untouched.directory)
    assert (plain.directory / PARAMS).read_bytes() == (untouched.directory / PARAMS).read_bytes()
    for cost in ("tokens/total", "passes/serial", "flops/total"):
        assert plain.metrics[cost].equals(untouched.metrics[cost])
    assert steps_with(untouched, "curvature/eigenvalue/ggn_2") == [0, 2, 4, 5]
    assert steps_with(untouched, "curvature/gn_cosine") == [2, 4, 5]
    has = "curvature/condition/root" in untouched.metrics.columns
    assert has == (optimizer == "soap")


def test_a_measurement_right_after_resuming_knows_where_its_update_started(tmp_path: Path) -> None:
    workspace = Workspace(tiny.write_project(tmp_path / "project"))
    declared = experiment("soap", {**METRIC, "every": 3}, steps=3)
    untouched = run(declared, workspace, tmp_path / "untouched")
    with pytest.raises(Crash):
        run(declared, workspace, tmp_path / "again", watches=[at(2)])
    assert_equal_but_for_clocks(run(declared, workspace, tmp_path / "again").directory, untouched.directory)
    assert steps_with(untouched, "curvature/gn_cosine") == [3]


def steps_with(found: Run, column: str) -> list[int]:
    return found.metrics.drop_nulls(column)["step"].to_list()  # type: ignore[no-any-return]
