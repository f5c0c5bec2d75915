"""Starting weights that have rotted: never used, always named."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
from rot import flip
from safetensors.torch import save_file

from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import Program
from gnflow.compiler.program import compile as make_program
from gnflow.data.prepare import prepare
from gnflow.errors import DataError, SpecError
from gnflow.objective import Params
from gnflow.spec.canonical import format_resolved
from gnflow.train import checkpoint, disk
from gnflow.train.start import make_start
from gnflow.workspace import Workspace

Report = Callable[[str], None]


@cache
def made(beginning: str | None) -> tuple[Plan, Program]:
    chosen = {} if beginning is None else {"start": {"kind": "checkpoint", "path": beginning}}
    planned = plan(tiny.experiment(**chosen))
    return planned, make_program(planned)


def weights(root: Path, beginning: str | None = None, report: Report = lambda line: None) -> Params:
    """What a run of this project would start from: AdamW's weights, or those at a path."""
    planned, program = made(beginning)
    dataset = prepare(planned.experiment.data, Workspace(root))
    return make_start(planned, program, dataset, Workspace(root), report)


def assert_same(one: Params, other: Params) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_cached_weights_that_rotted_are_named_and_made_again(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    before = weights(root)
    [path] = (root / ".gnflow" / "starts").glob("*.safetensors")
    good = path.read_bytes()
    for file, place in ((path, 0), (path, len(good) // 2), (path, -1), (path.with_suffix(".sha256"), 5)):
        flip(file, place)
        said: list[str] = []
        assert_same(weights(root, report=said.append), before)
        assert said == [
            f"warning: {path} is not used: it does not match its SHA-256 digest",
            "warming the starting weights: 3 AdamW steps",
        ]
        assert path.read_bytes() == good


@pytest.mark.parametrize("named", ["model", "model/params.safetensors"])
def test_weights_of_another_run_that_rotted_are_refused_by_name(tmp_path: Path, named: str) -> None:
    root = tiny.write_project(tmp_path)
    before = weights(root)
    model = root / "model"
    model.mkdir()
    save_file(before, model / checkpoint.PARAMS)
    disk.write(model / "experiment.yaml", format_resolved(tiny.experiment()).encode())
    checkpoint.seal(model, checkpoint.PARAMS, "experiment.yaml")
    assert_same(weights(root, named), before)
    for name in (checkpoint.PARAMS, "experiment.yaml", checkpoint.MANIFEST):
        flip(model / name, 9)
        with pytest.raises(DataError, match=rf"start\.path: {model} is damaged: {name} ") as raised:
            weights(root, named)
        assert raised.value.exit_code == 4
        flip(model / name, 9)


def test_a_file_without_a_manifest_is_read_as_it_is(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    before, file = weights(root), root / "weights.safetensors"
    save_file(before, file)
    assert_same(weights(root, file.name), before)
    flip(file, 0)
    with pytest.raises(DataError, match=rf"{file} is not a readable safetensors file"):
        weights(root, file.name)
    file.unlink()
    with pytest.raises(SpecError, match=f"{file} cannot be read"):
        weights(root, file.name)
