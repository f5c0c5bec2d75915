"""`gnflow graph`: the compiled regions of a spec."""

import json

import pytest
import tiny
import torch
import yaml

from gnflow.commands.graph import FEW, TOKENS, _compile, _shorten, graph
from gnflow.compiler.plan import plan
from gnflow.compiler.regions import Compiled
from gnflow.errors import EnvironmentProblem
from gnflow.spec.load import load


def write_spec(root, **sections):
    path = tiny.write_project(root) / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny.tiny(steps=1) | sections))
    return path


def test_the_stages_of_a_spec_are_listed_once_whatever_the_depth(tmp_path, capsys):
    spec = write_spec(
        tmp_path,
        model={"kind": "decoder", "layers": 3, "width": 16, "heads": 2},
        compile={"mode": "default"},
    )
    assert graph(spec, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["region"]: row for row in found["regions"]}
    assert set(rows) == {"embed.keep", "apply_block.keep", "apply_head.gradient", "update"}
    assert all(
        len(row["nodes"]) == 1 and row["kernels"] and row["seconds"] and not row["breaks"] for row in rows.values()
    )
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in rows.values()))


def test_a_spec_that_compiles_nothing_is_refused(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"compile\.mode is off"):
        graph(write_spec(tmp_path, compile={"mode": "off"}), json=False)


def test_a_break_is_found_with_its_line():
    def double_and_add(x):
        doubled = 2 * x
        torch._dynamo.graph_break()
        return doubled + 1

    region = Compiled("broken", double_and_add, "default", fullgraph=False)
    region(torch.ones(3))
    assert len(region.graphs) == 2
    (place,) = region.breaks
    line = double_and_add.__code__.co_firstlineno + 2
    assert place.endswith(f"test_graph.py:{line}")


def test_a_step_for_the_graphs_is_small_and_the_plan_is_not(tmp_path):
    spec = write_spec(
        tmp_path,
        optimizer={"kind": "muon", "microbatches": 4096},
        compile={"mode": "default"},
        training={"steps": 2, "rows": 4096, "device": "cpu", "start": "scratch"},
    )
    program = _compile(_shorten(load(spec).experiment))
    assert program.plan.experiment.training.rows * program.plan.experiment.data.context <= TOKENS
    assert program.plan.microbatches == FEW
    assert program.plan.memory == plan(_shorten(load(spec).experiment)).memory
