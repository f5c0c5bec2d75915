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
    with pytest.raises(SpecError, match=r"training\.start\.path: cannot read"):
        run(experiment(start={"kind": "checkpoint", "path": path}), workspace)
    done = run(experiment(start="scratch"), workspace)
    assert done.summary["status"] == "complete"
    with pytest.raises(SpecError, match="holds a run of another spec"):
        run(experiment(start="scratch", seed=5), workspace)
