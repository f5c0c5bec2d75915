import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.commands.plan import plan
from gnflow.errors import SpecError

SPECS = Path(__file__).parents[2] / "specs"


def test_the_answer_comes_first_and_every_tensor_when_asked_for(capsys):
    assert plan(SPECS / "full_gn.yaml", sets=(), json=False) == 0
    short = capsys.readouterr().out
    lines = short.splitlines()
    assert lines[0] == "full_gn: 214,208 parameters on cpu, plain attention, 14 steps"
    assert "72 micro-batches, 131,072 tokens to solve on + 16,384 to search on, 65 serial passes" in lines[1]
    assert lines[2].startswith("the run: 2,064,384 tokens, 910 serial passes")
    assert lines[3].startswith("evaluation: at most 15 times, 240 passes over a micro-batch")
    assert "blocks.2.feedforward.down.weight" not in short
    assert "`--parameters` lists every tensor" in lines[-1]
    assert re.search(r"rate muon {12}█{48}  constant: first 0.01, peak 0.01, last 0.01\n", short)

    assert plan(SPECS / "full_gn.yaml", sets=(), json=False, parameters=True) == 0
    whole = capsys.readouterr().out
    assert whole.splitlines()[:4] == lines[:4]
    assert "blocks.2.feedforward.down.weight" in whole


def test_evaluation_that_is_dearer_than_training_is_warned_about(capsys):
    plan(SPECS / "muon.yaml", sets=("optimizer.microbatches=1",), json=False)
    printed = capsys.readouterr().out
    assert "warning: evaluation takes 8" in printed
    assert "since it comes after every step; `training.evaluate_every: " in printed
    plan(SPECS / "muon.yaml", sets=(), json=False)
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["adamw", "muon", "full_gn", "layerwise_gn", "prox_linear_gn"])
def test_every_shipped_spec_has_the_same_tokens_to_solve_on(name, capsys):
    assert plan(SPECS / f"{name}.yaml", sets=(), json=True) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["step"]["tokens/solve"] == 131_072
    assert planned["parameters"] == 214_208


def test_every_block_is_printed_with_its_region_and_its_cost(capsys):
    plan(SPECS / "layerwise_gn.yaml", sets=(), json=False)
    printed = capsys.readouterr().out
    assert "72 micro-batches, 131,072 tokens to solve on + 16,384 to search on, 65 serial passes" in printed
    assert "block head: solved for with `curved.head`, which needs 30% of the FLOPs of `curved`" in printed


def test_what_a_set_changes_is_planned(capsys):
    plan(SPECS / "muon.yaml", sets=("model.layers=1", "training.steps=2"), json=True)
    planned = json.loads(capsys.readouterr().out)
    assert (planned["steps"], planned["parameters"]) == (2, 115_136)


def test_a_bad_spec_is_refused_before_torch_is_imported(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom gnflow.commands.plan import plan\n"
        "from gnflow.errors import SpecError\n"
        "try:\n    plan(Path('bad.yaml'), sets=(), json=False)\n"
        "except SpecError:\n    sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
    with pytest.raises(SpecError):
        plan(tmp_path / "bad.yaml", sets=(), json=False)
