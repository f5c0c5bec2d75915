"""A real experiment that takes a second: one layer of width 16 on bytes of a small text."""

import random
from pathlib import Path

from gnflow.spec.experiment import Experiment

WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "sleeps", "under", "an", "old",
    "tree", "while", "rain", "falls", "on", "hills",
)  # fmt: skip
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "microbatches": 2},
    "muon": {"kind": "muon", "microbatches": 2, "schedule": {"kind": "cosine", "warmup": 2}},
    "gauss_newton": {
        "kind": "gauss_newton",
        "inner": {"kind": "muon"},
        "inner_steps": 3,
        "search": {"kind": "geometric", "trials": 3, "microbatches": 2},
    },
}


def write_project(root: Path) -> Path:
    """A project with a text and nothing else."""
    drawn = random.Random(0)
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    text = "\n".join(" ".join(drawn.choice(WORDS) for _ in range(12)) + "." for _ in range(300))
    (root / "text.txt").write_text(text)
    return root


def tiny(optimizer: str = "adamw", name: str = "tiny", **training: object) -> dict[str, object]:
    """The spec as a plain tree."""
    return {
        "name": name,
        "model": {"kind": "decoder", "layers": 1, "width": 16, "heads": 2},
        "data": {"source": {"kind": "files", "paths": ["text.txt"]}, "tokenizer": "bytes", "context": 16},
        "optimizer": OPTIMIZERS[optimizer],
        "training": {
            "steps": 6, "rows": 4, "device": "cpu", "checkpoint_every": 2,
            "start": {"kind": "warmup", "steps": 3}, **training,
        },
        "metrics": [{"kind": "loss", "microbatches": 2}, "cost", "update_norms"],
        "compile": {"mode": "off"},
        "tracking": "none",
    }  # fmt: skip


def experiment(optimizer: str = "adamw", name: str = "tiny", **training: object) -> Experiment:
    return Experiment.model_validate(tiny(optimizer, name, **training))
