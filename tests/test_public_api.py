import subprocess
import sys
from pathlib import Path

import pytest

import gnflow
from gnflow.errors import SpecError


def test_importing_gnflow_costs_nothing() -> None:
    code = "import sys; before = set(sys.modules); import gnflow; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "gnflow" in loaded
    assert not {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"gnflow"}


def test_load_gives_an_experiment_or_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n")
    assert gnflow.load(path, ["training.seed=3"]).training.seed == 3
    assert gnflow.load(str(path)).name == "a"
    with pytest.raises(SpecError, match="did you mean `seed`"):
        gnflow.load(path, ["training.sede=3"])


def test_the_five_names_are_where_they_say() -> None:
    from gnflow.compiler.plan import plan
    from gnflow.compiler.program import compile  # noqa: A004
    from gnflow.train.loop import run
    from gnflow.train.run import Run

    assert (gnflow.plan, gnflow.compile, gnflow.run, gnflow.Run) == (plan, compile, run, Run)
    assert {"load", "plan", "compile", "run", "Run"} <= set(dir(gnflow))


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no `trian`"):
        gnflow.trian  # noqa: B018
