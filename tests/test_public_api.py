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


def test_the_six_names_are_where_they_say() -> None:
    from gnflow.compiler.plan import plan
    from gnflow.compiler.program import compile  # noqa: A004
    from gnflow.train.feed import batches
    from gnflow.train.loop import run
    from gnflow.train.run import Run

    found = (gnflow.plan, gnflow.compile, gnflow.batches, gnflow.run, gnflow.Run)
    assert found == (plan, compile, batches, run, Run)
    assert {"load", "plan", "compile", "batches", "run", "Run"} <= set(dir(gnflow))


def test_a_run_is_loaded_by_its_directory_or_by_its_name(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    by_name, by_path = gnflow.Run.load("tiny"), gnflow.Run.load(finished / "runs" / "tiny")
    assert by_name.directory == by_path.directory == finished / "runs" / "tiny"
    assert gnflow.Run.load("runs/tiny").summary == by_name.summary
    with pytest.raises(SpecError, match="no run of this name"):
        gnflow.Run.load("tinny")


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no `trian`"):
        gnflow.trian  # noqa: B018
