import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.commands.plan import plan
from gnflow.errors import SpecError

SPECS = Path(__file__).parents[2] / "specs"


def test_every_tensor_every_region_and_the_cost_of_a_step_are_printed(capsys):
    assert plan(SPECS / "full_gn.yaml", sets=(), json=False) == 0
    printed = capsys.readouterr().out
    assert "blocks.2.feedforward.down.weight" in printed
    assert "72 micro-batches, 131,072 tokens to solve on + 16,384 to search on, 65 serial passes" in printed
    assert "plain attention" in printed
    assert re.search(r"rate muon {12}█{48}  constant: first 0.01, peak 0.01, last 0.01\n", printed)


@pytest.mark.parametrize("name", ["adamw", "muon", "full_gn", "layerwise_gn", "prox_linear_gn"])
def test_every_shipped_spec_has_the_same_tokens_to_solve_on(name, capsys):
    assert plan(SPECS / f"{name}.yaml", sets=(), json=True) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["step"]["tokens/solve"] == 131_072
    assert planned["parameters"] == 214_208


def test_every_block_is_printed_with_its_region_and_why(capsys):
    plan(SPECS / "layerwise_gn.yaml", sets=(), json=False)
    printed = capsys.readouterr().out
    assert "72 micro-batches, 131,072 tokens to solve on + 16,384 to search on, 65 serial passes" in printed
    assert "block head: solved for with `curved.head`, which needs 30% of the FLOPs of `curved`" in printed
    plan(SPECS / "layerwise_gn.yaml", sets=("model.layers=1", "data.tokenizer.vocabulary=300"), json=False)
    assert "block blocks.0: solved for with `curved`; a region of its own would need 9" in capsys.readouterr().out


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
