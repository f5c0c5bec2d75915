import pytest
import tiny

from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.train.loop import run
from gnflow.workspace import Workspace


def experiment(**training: object) -> Experiment:
    return Experiment.model_validate(tiny.tiny("adamw", steps=2, **training))


@pytest.mark.parametrize("path", ["nowhere", "text.txt/inside"])
def test_a_run_that_never_began_does_not_keep_its_name_from_a_corrected_spec(path, tmp_path):
    tiny.write_project(tmp_path)
    workspace = Workspace(tmp_path)
    with pytest.raises(SpecError, match=r"training\.start\.path: .* cannot be read"):
        run(experiment(start={"kind": "checkpoint", "path": path}), workspace)
    done = run(experiment(start="scratch"), workspace)
    assert done.summary["status"] == "complete"
    with pytest.raises(SpecError, match="holds a run of another spec"):
        run(experiment(start="scratch", seed=5), workspace)


def test_an_evaluation_larger_than_the_held_out_text_takes_the_text_once(tmp_path):
    tiny.write_project(tmp_path)
    tree = tiny.tiny("adamw", steps=1, start="scratch")
    losses = [
        run(Experiment.model_validate({**tree, "name": name, "metrics": [metric]}), Workspace(tmp_path)).summary[
            "loss/held_out"
        ]
        for name, metric in (
            ("all", {"kind": "loss", "microbatches": 10**9}),
            ("one", {"kind": "loss", "microbatches": 1}),
        )
    ]
    assert losses[0] != losses[1]
