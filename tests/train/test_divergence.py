"""Starting weights that know less than a uniform guess are told of, and others are not."""

from math import log
from pathlib import Path

from safetensors.torch import save_file
from tiny import experiment, write_project

from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as make_program
from gnflow.spec.experiment import Experiment
from gnflow.train.divergence import describe_poor_start
from gnflow.train.journal import read
from gnflow.train.loop import run
from gnflow.workspace import Workspace


def events(spec: Experiment, root: Path) -> list[str]:
    return [event.name for event in read(run(spec, Workspace(root)).directory / "journal.jsonl").events]


def test_a_start_far_above_a_uniform_guess_is_an_event_of_the_run(tmp_path: Path) -> None:
    write_project(tmp_path)
    params = make_program(plan(experiment())).initial()
    large = {name: 30 * w if name == "head.weight" else w for name, w in params.items()}
    save_file(large, tmp_path / "params.safetensors")
    bad = experiment(start={"kind": "checkpoint", "path": "params.safetensors"})
    assert "poor_start" in events(bad, tmp_path)


def test_the_models_own_starts_are_not_told_of(tmp_path: Path) -> None:
    write_project(tmp_path)
    assert events(experiment(start="scratch", steps=1), tmp_path) == []


def test_the_bound_is_two_nats_above_the_logarithm_of_the_vocabulary() -> None:
    assert describe_poor_start(log(512) + 1.9, 512) is None
    assert "held-out loss of 22.2; a uniform guess among 512 tokens has 6.2" in (describe_poor_start(22.2, 512) or "")
    assert describe_poor_start(None, 512) is None
