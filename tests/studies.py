"""A study of two tiny methods in a project of its own."""

import subprocess
from pathlib import Path

SPEC = """
name: {name}
model: {{kind: decoder, layers: 1, width: 16, heads: 2}}
data: text
optimizer: {{kind: {kind}, microbatches: 1}}
training: {{steps: 2, rows: 2, device: cpu, start: scratch}}
metrics: [{{kind: loss, microbatches: 1}}, cost]
compile: {{mode: off}}
tracking: none
"""
STUDY = """
name: tiny
arms:
  adamw: ../../specs/adamw.yaml
  muon:
    spec: ../../specs/muon.yaml
    set: {training.steps: 1}
seeds: [1, 2]
tuning:
  trials: 2
  seed: 0
  space:
    optimizer.learning_rate: {low: 0.001, high: 0.1, scale: log}
targets: [6.0, 5.0]
reference: muon
"""


def project(root: Path, study: str = STUDY, name: str = "tiny") -> Path:
    """The folder of the study; a git and DVC repository around it."""
    folder = root / "pipelines" / name
    folder.mkdir(parents=True)
    (root / "specs").mkdir()
    for kind in ("adamw", "muon"):
        (root / "specs" / f"{kind}.yaml").write_text(SPEC.format(name=kind, kind=kind))
    (folder / "study.yaml").write_text(study)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return folder
