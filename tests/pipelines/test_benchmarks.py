import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "benchmarks"
TINY = "import measure, pathlib, sys; measure.main(pathlib.Path(sys.argv[1]), ((1, 8),), (6,), runs=2)"


def test_tiny_shapes_give_a_whole_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TINY, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "TORCH_COMPILE_DISABLE": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["machine"].keys() >= {"date", "cpu", "cores", "threads", "torch", "gpu", "load_before"}
    rows = result["cpu"]
    firsts = [row["what"].partition(" : ")[0] for row in rows]
    assert firsts[1:3] == ["as_torch(muon(dtype=bfloat16))", "as_torch(muon(dtype=bfloat16), compile=True)"]
    assert firsts[0] == firsts[3] == "Muon's update"
    assert firsts[-2:] == ["RMNP's rows to one", "basis by CholeskyQR2"]
    assert sum(first.startswith("SOAP's mean step over 10, ") for first in firsts) == 5
    compared = {row["what"].partition(" : ")[2] for row in rows}
    named = [name for name in ("pytorch_optimizer", "heavyball", "emerging_optimizers") if f"{name}.SOAP" in compared]
    assert sorted([*named, *result["machine"]["missing"]]) == ["emerging_optimizers", "heavyball", "pytorch_optimizer"]
    for row in rows:
        assert row["runs"] == 2
        for low, middle, high in (row["ours_ms"], row["theirs_ms"]):
            assert 0 < low <= middle <= high
        assert row["ratio"] == row["ours_ms"][1] / row["theirs_ms"][1]
    table = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {8}
    assert torch.cuda.is_available() or "no GPU" in (tmp_path / "results.md").read_text()


def test_the_stage_writes_what_the_script_does() -> None:
    stage = YAML(typ="safe").load((FOLDER / "dvc.yaml").read_text())["stages"]["measure"]
    assert all((FOLDER / path).exists() for path in stage["deps"])
    assert [next(iter(each)) for each in (*stage["outs"], *stage["metrics"])] == ["results.md", "results.json"]


@pytest.fixture
def curved(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("curved")
    for name in ("alone", "curved", "measure", "cases", "peers", "stages", "precision", "nanogpt"):
        sys.modules.pop(name, None)


CALL = """
import curved, torch
large = torch.ones(2**26)  # 256 MiB, gone before the call
del large

def call():
    passing = torch.ones(2**24)
    return passing[: 2**22] + 1  # 64 MiB and, at the same time, 16 MiB

print(curved.held(call))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_what_a_call_held_is_counted_at_its_highest_point_and_nothing_before_it(curved: ModuleType) -> None:
    # In a process of its own, as the cases are: what other tests freed, the allocator would hand out again.
    environment = {**os.environ, **curved.ALLOCATOR, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
    assert pytest.approx(int(done.stdout), rel=0.05) == 80 * 2**20


def test_the_published_page_is_the_report_of_the_published_figures(curved: ModuleType) -> None:
    stored = json.loads((FOLDER / "curved.json").read_text())
    assert curved.report(stored) == (FOLDER / "curved.md").read_text()
    for row in stored["time"]:
        assert row["ratio"] == {name: pytest.approx(row[name][1] / row["gradient"][1]) for name in curved.MODELS}
        assert row["flops"] == {"curved": pytest.approx(5 / 3), "difference": pytest.approx(4 / 3)}
    for row in stored["memory"]:
        assert row["ratio"] == {name: pytest.approx(row[name] / row["gradient"]) for name in curved.MODELS}


@pytest.mark.usefixtures("curved")
@pytest.mark.parametrize("name", ["results", "stages", "precision", "nanogpt"])
def test_every_page_is_the_report_of_its_figures(name: str) -> None:
    script = importlib.import_module("measure" if name == "results" else name)
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    assert script.report(stored) == (FOLDER / f"{name}.md").read_text()


def test_the_stage_of_curved_writes_what_the_script_does() -> None:
    stage = YAML(typ="safe").load((FOLDER / "dvc.yaml").read_text())["stages"]["curved"]
    assert all((FOLDER / path).exists() for path in stage["deps"])
    assert [next(iter(each)) for each in (*stage["outs"], *stage["metrics"])] == ["curved.md", "curved.json"]
