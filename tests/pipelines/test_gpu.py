import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "gpu" / "measure.py"


@pytest.fixture
def measure(tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.NOTES = tmp_path / "gpu.md"
    module.NOTES.write_text(
        "# GPU measurements\n\nNo GPU figure has been recorded yet. Figures elsewhere are of CPUs.\n"
    )
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_run_or_noted() -> None:
    before = (ROOT / "docs" / "gpu.md").read_text()
    done = subprocess.run([sys.executable, SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no GPU" in done.stdout
    assert (ROOT / "docs" / "gpu.md").read_text() == before


def test_the_first_note_replaces_the_sentence_that_there_is_none(measure: ModuleType) -> None:
    measure.append("## 2026-01-01: a GPU\n\n- fast\n")
    measure.append("## 2026-01-02: a GPU\n\n- faster\n")
    assert measure.NOTES.read_text() == (
        "# GPU measurements\n\nFigures elsewhere are of CPUs.\n\n"
        "## 2026-01-01: a GPU\n\n- fast\n\n## 2026-01-02: a GPU\n\n- faster\n"
    )


def test_the_note_takes_the_gpu_table_of_the_benchmarks(measure: ModuleType) -> None:
    report = "# Benchmarks\n\n## CPU\n\n| a |\n|---|\n| cpu |\n\n## GPU: a GPU\n\n| a |\n|---|\n| gpu |\n"
    assert measure.benchmarks(report).endswith(":\n\n| a |\n|---|\n| gpu |\n")
