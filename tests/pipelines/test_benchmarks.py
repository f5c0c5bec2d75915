import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "benchmarks"
TINY = "import measure, pathlib, sys; measure.main(pathlib.Path(sys.argv[1]), ((1, 8),), (6,), runs=2)"


def test_tiny_shapes_give_a_whole_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TINY, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["machine"].keys() >= {"date", "cpu", "cores", "threads", "torch", "gpu", "load_before"}
    rows = result["cpu"]
    assert [row["what"].partition(" : ")[0] for row in rows] == [
        "Muon's update", "Muon's update", "SOAP's mean step over 10", "RMNP's rows to one", "basis by CholeskyQR2",
    ]  # fmt: skip
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
