"""A metric of somebody else: a class and a factory in a module of their own, which gnflow knows nothing about."""

import importlib
import sys
from pathlib import Path

import pytest

from gnflow.spec.experiment import Experiment
from gnflow.spec.training import MetricKind

TOP_FIVE = '''
from typing import Literal

import torch

from gnflow.metrics.protocol import Metric
from gnflow.spec.training import MetricKind


class TopFive(MetricKind):
    """Part of the held-out targets that are among the five likeliest ids."""

    factory = "my_metrics:top_five"
    kind: Literal["top_five"] = "top_five"
    microbatches: int = 3


def top_five(spec, subject):
    def measure(at):
        hits = []
        for tokens in at.batch:
            inputs, targets = subject.network.split(tokens)
            likeliest = subject.network.compute_logits(at.params, inputs).topk(5).indices
            hits.append((likeliest == targets.ids.unsqueeze(-1)).any(-1).double().mean())
        found = {"top_five/part": torch.stack(hits).mean(), "top_five/seen": torch.tensor(float(len(hits)))}
        if at.before:
            found["top_five/moved"] = sum((at.params[name] - old).norm() for name, old in at.before.items())
        if at.write is not None:
            at.write(f"top_five_{at.step}.txt", str(found["top_five/part"].item()).encode())
        return found

    def probe(momentum):
        return {"top_five/momentum": sum(v.norm() for v in momentum.values())}

    return Metric(measure, spec.microbatches, every=2, needs_before=True, probe=probe)
'''


def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str = TOP_FIVE) -> MetricKind:
    """The metric `TopFive` of a module `my_metrics` with this source."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    (folder / "my_metrics.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    found: MetricKind = importlib.import_module("my_metrics").TopFive()
    monkeypatch.delitem(sys.modules, "my_metrics")
    return found


def having(experiment: Experiment, metric: MetricKind) -> Experiment:
    """The same experiment with one metric more."""
    return experiment.model_copy(update={"metrics": (*experiment.metrics, metric)})
