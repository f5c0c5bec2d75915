"""A metric of somebody else goes through the same door as the built-in ones."""

from contextlib import suppress
from pathlib import Path

import polars
import pytest
import stranger_metrics as strangers
import tiny

from gnflow.metrics.protocol import Metric
from gnflow.spec.problems import SpecProblems
from gnflow.train.loop import run
from gnflow.workspace import Workspace


def test_a_strangers_metric_is_measured_recorded_and_part_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tiny.write_project(tmp_path / "project"))
    plain = tiny.experiment("muon", steps=5)
    declared = strangers.having(plain, strangers.metric(tmp_path, monkeypatch))
    with suppress(
        SpecProblems
    ):  # what a finished run has stored is read again, and no table of the project names the kind
        run(declared, workspace, tmp_path / "run")
    table = polars.read_parquet(tmp_path / "run" / "metrics.parquet")
    measured = table.drop_nulls("top_five/part")
    assert measured["step"].to_list() == [0, 2, 4, 5]
    assert all(0 < part < 1 for part in measured["top_five/part"])
    assert set(measured["top_five/seen"]) == {3.0}  # more micro-batches than the loss has
    assert table.drop_nulls("top_five/moved")["step"].to_list() == [2, 4, 5]
    assert (table.drop_nulls("top_five/moved")["top_five/moved"] > 0).all()
    assert table.drop_nulls("top_five/momentum")["step"].to_list() == [1, 2, 3, 4, 5]
    kept = {path.name: float(path.read_text()) for path in (tmp_path / "run" / "samples").iterdir()}
    assert kept == {f"top_five_{row['step']}.txt": row["top_five/part"] for row in measured.to_dicts()}
    without = run(plain, workspace, tmp_path / "without")
    weights = "model/params.safetensors"
    assert (without.directory / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()
    assert without.metrics["loss/held_out"].equals(table["loss/held_out"])


@pytest.mark.parametrize(
    ("every", "due"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (None, [5]), (9, [0, 5])], ids=str
)
def test_a_metric_is_due_every_so_many_evaluations_and_at_the_last(every: int | None, due: list[int]) -> None:
    metric = Metric(every=every)
    assert [number for number in range(6) if metric.is_due(number, last=number == 5)] == due
