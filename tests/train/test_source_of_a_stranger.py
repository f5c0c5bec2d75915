from pathlib import Path

import pytest
import stranger_sources as strangers
import tiny
from acting import Crash, at

from gnflow.spec.data import SourceKind
from gnflow.spec.experiment import Experiment
from gnflow.train.journal import read
from gnflow.train.loop import run
from gnflow.workspace import Workspace


def experiment(source: SourceKind, name: str) -> Experiment:
    made = tiny.experiment(name=name, steps=3, checkpoint_every=1, start={"kind": "warmup", "steps": 2})
    return made.model_copy(update={"data": strangers.section(source)})


def crashed(experiment: Experiment, root: Path, step: int) -> Path:
    """The directory of the run after it died at a step."""
    with pytest.raises(Crash):
        run(experiment, Workspace(root), watches=[at(step)])
    return root / "runs" / experiment.name


def losses_of(directory: Path) -> list[float]:
    return [step.values["loss/held_out"] for step in read(directory / "journal.jsonl").steps.values()]


@pytest.mark.parametrize("kind", ["Poems", "Numbers"])
def test_a_run_on_it_that_dies_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    strangers.write_poems(tiny.write_project(tmp_path))
    source = strangers.source(kind, tmp_path, monkeypatch)
    whole = crashed(experiment(source, "whole"), tmp_path, 3)
    broken = crashed(experiment(source, "broken"), tmp_path, 1)
    assert not (broken / "checkpoints" / "step_00000002").exists()
    crashed(experiment(source, "broken"), tmp_path, 3)
    for name in ("params.safetensors", "optimizer.safetensors"):
        file = Path("checkpoints") / "step_00000002" / name
        assert (broken / file).read_bytes() == (whole / file).read_bytes()
    losses = [losses_of(directory) for directory in (whole, broken)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
