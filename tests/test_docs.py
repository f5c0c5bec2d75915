"""What docs/as_library.md, docs/api.md and docs/methods.md show is what happens."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import gnflow
from gnflow.cli import app
from gnflow.spec.built_in import BUILT_IN

ROOT = Path(__file__).parents[1]
LOOP, _, SPAWN = re.findall(
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


def test_every_example_of_the_api_runs_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    [spec] = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    tiny.write_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    Path("tiny.yaml").write_text(spec)
    scope: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "api.md", "exec"), scope)
    assert scope["run"].summary["status"] == "complete"  # type: ignore[attr-defined]
    assert scope["weights"].keys() == {row.name for row in scope["plan"].parameters}  # type: ignore[attr-defined]
    assert scope["comparison"].budgets  # type: ignore[attr-defined]
    for name in re.findall(r"^\| `gnflow\.(\w+)", page, flags=re.MULTILINE):
        assert name in gnflow.__all__
    assert set(re.findall(r"gnflow\.(\w+)", page)) >= set(gnflow.__all__)


def test_the_page_of_methods_names_every_built_in_rule_and_its_examples_run() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    assert not [kind for kind in BUILT_IN["optimizers"] if f"| `{kind}` |" not in page]
    scope: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "methods.md", "exec"), scope)
    params, gradients = {"w": torch.ones(4, 3)}, {"w": torch.randn(4, 3)}
    for name in ("on_a_sphere", "decaying"):
        transform = scope[name]
        updates, _ = transform.update(gradients, transform.init(params), params)
        assert 0 < updates["w"].norm() < 0.1
        if name == "on_a_sphere":
            torch.testing.assert_close((params["w"] + updates["w"]).norm(), params["w"].norm())
    assert scope["optimizer"].state[scope["model"].weight]["diagonal"].gt(0).all()


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


def test_the_index_of_decisions_has_every_one_with_its_status() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    index = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", text, flags=re.MULTILINE)
    found = re.findall(r"^## (\d+)\. (.*)\n+(?:\*\*(Replaced[^*:]*):\*\*)?", text, flags=re.MULTILINE)
    assert index == found
    assert [int(number) for number, _, _ in found] == list(range(1, len(found) + 1))


def test_the_first_ten_minutes_go_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    [spec] = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tiny.write_project(tmp_path / "project"))
    Path("first.yaml").write_text(spec)
    shown = re.findall(r"^gnflow (check|plan|explain) (.*?)(?: +#.*)?$", page, flags=re.MULTILINE)
    assert [verb for verb, _ in shown] == ["check", "plan", "explain"]
    for verb, words in shown:
        with pytest.raises(SystemExit) as ended:
            app([verb, *words.split()])
        assert ended.value.code == 0, capsys.readouterr()
    runs = [words.split() for words in re.findall(r"^gnflow run first\.yaml ?(.*)$", page, flags=re.MULTILINE)]
    experiments = [gnflow.load("first.yaml", [word for word in words if word != "--set"]) for words in runs]
    assert [(each.name, each.optimizer.kind) for each in experiments] == [("first", "muon"), ("second", "gauss_newton")]
