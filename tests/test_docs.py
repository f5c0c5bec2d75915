"""What docs/as_library.md shows is what happens."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

ROOT = Path(__file__).parents[1]
LOOP, PURE, SPAWN = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "as_library.md").read_text(), flags=re.MULTILINE | re.DOTALL
)


def test_the_training_loop_it_shows_trains_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(LOOP, "as_library.md", "exec"), scope)
    model, optimizer = scope["model"], scope["optimizer"]
    assert isinstance(scope["loss"], torch.Tensor)
    assert scope["loss"] < 0.1
    saved = torch.load("checkpoint.pt", weights_only=True)
    assert saved["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]  # type: ignore[attr-defined]
    assert saved["model"].keys() == model.state_dict().keys()  # type: ignore[attr-defined]


def test_the_pure_functions_it_shows_are_called_so() -> None:
    from gnflow.optim import soap

    params, gradients = {"w": torch.ones(4, 3)}, {"w": torch.randn(4, 3)}
    scope = {"transform": soap(), "params": params, "gradients": gradients}
    exec(compile(PURE, "as_library.md", "exec"), scope)
    assert scope["updates"]["w"].shape == (4, 3)  # type: ignore[index]


def test_a_process_is_started_as_it_shows(tmp_path: Path) -> None:
    (tiny.write_project(tmp_path) / "specs").mkdir()
    (tmp_path / "specs" / "adamw.yaml").write_text(json.dumps(tiny.tiny(steps=1, start="scratch")))
    program = f"import torch\ntorch.ones(999, 999) @ torch.ones(999, 999)\n{SPAWN}"
    (tmp_path / "program.py").write_text(program)
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "runs" / "tiny" / "summary.json").exists()


def test_every_fault_names_a_test_that_exists() -> None:
    rows = re.findall(r"`(tests/[\w/]+\.py)` `(\w+)` \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    assert not [(file, name) for file, name in rows if f"def {name}(" not in (ROOT / file).read_text()]
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if "\n@pytest.mark.faults\n" in path.read_text()}
    assert len(marked) > 3
    assert marked <= {ROOT / file for file, _ in rows}, "`make faults` runs the files of this table"
