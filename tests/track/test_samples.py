"""From a spec to sheets in the run directory, in MLflow and in a report, by the commands that a user gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mirroring import client, mlflow_warnings, run_id

from gnflow.track import location
from gnflow.workspace import Workspace

SPEC = """
name: tiny
model: {kind: emu3, layers: 1, width: 16, heads: 2}
data:
  kind: multimodal
  style: emu3
  source: {kind: digits, captions: 1}
  image_tokenizer: {kind: vq, codebook: 8}
optimizer: adamw
training: {steps: 2, rows: 4, start: scratch, device: cpu}
metrics: [{kind: loss, microbatches: 1}, cost, {kind: samples, captions: 3, guidance: 2.0}]
compile: {mode: off}
"""


def gnflow(root: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "gnflow", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@mlflow_warnings
def test_a_run_leaves_its_sheet_everywhere(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "tiny.yaml").write_text(SPEC)
    gnflow(tmp_path, "run", "tiny.yaml")
    gnflow(tmp_path, "track", "runs/tiny")  # on a busy machine the run does not wait for all to be sent
    run = tmp_path / "runs" / "tiny"
    picture = (run / "samples" / "step_00000002.png").read_bytes()
    figures = json.loads((run / "samples" / "step_00000002.json").read_text())["figures"]
    uri = location.find_tracking_uri(workspace)
    kept = client(uri).download_artifacts(run_id(run), "samples/step_00000002.png", str(tmp_path))
    assert Path(kept).read_bytes() == picture
    assert figures.items() <= client(uri).get_run(run_id(run)).data.metrics.items()
    gnflow(tmp_path, "report", "runs/tiny", "--target", "100", "-o", "report.html")
    assert 'class="sheet"' in (tmp_path / "report.html").read_text()
