from contextlib import closing
from pathlib import Path

import pytest
import tiny

from gnflow.compiler.plan import plan
from gnflow.spec.experiment import Experiment
from gnflow.train.clock import Taken
from gnflow.train.journal import Journal
from gnflow.train.recorder import Recorder

VALUES = {"loss/train": 1.0, "learning_rate": 0.1, "norm/update": 2.0, "gn/alpha": 1.0, "mine/part": 0.5}
COSTS = {"tokens/solve", "tokens/search", "tokens/total", "passes/serial", "flops/total"}
CLOCKS = {"time/seconds", "time/cpu", "time/compile", "time/wall"}


@pytest.mark.parametrize(
    ("metrics", "left_out"),
    [
        (["loss", "cost", "update_norms"], set()),
        (["loss", "update_norms"], COSTS),
        (["loss", "cost"], {"norm/update"}),
        (["cost", "update_norms"], set()),
    ],
    ids=lambda value: " ".join(sorted(value)) or "none",
)
def test_columns_of_a_metric_that_is_not_declared_are_left_out_and_no_others(
    metrics: list[str], left_out: set[str], tmp_path: Path
) -> None:
    declared = Experiment.model_validate({**tiny.tiny(), "metrics": metrics})
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        record = Recorder(journal, plan(declared)).record_step(0, VALUES, Taken(), 0.0)
    assert set(record.values) == (set(VALUES) | COSTS | CLOCKS) - left_out
